/** ULOG: what programs are told of packets, when, how many at once; and who hears nothing. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { expect, test } from 'vitest'
import { parseIptables } from '../../../../src/lab/iptables/parse.js'
import { EINVAL } from '../../../../src/lib/errno.js'
import { table_blob } from '../../../../src/lib/iptables.js'
import { ipt_replace } from '../../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { delete_module } from '../../../../src/sched/module.js'
import { type Message, type Netlink, receive, rtnl_close, rtnl_open } from '../../../../src/user/libnetlink.js'
import { counting, fragments, udp, udpFrame } from '../../../helpers/frames.js'
import { loadRules, runTask } from '../../../helpers/iptables.js'
import { finish, start } from '../../../helpers/programs.js'
import { conserved, Script } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { user_procs: 4 },
})
const NFLOG = 5
const table = (rule: string): string => `*filter\n-A FORWARD ${rule}\nCOMMIT\n`
const packet = (k: number, bytes = 10): Uint8Array =>
  udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', dport: k, id: k }, counting(bytes))

/** A program that hears of so many messages of a group while `meanwhile` goes on; what came at once stands together. */
function hears(group: number, n: number, meanwhile: () => void): Message[][] {
  const r = start(function* () {
    const nl = (yield* rtnl_open(group, NFLOG)) as Netlink
    const all: Message[][] = []
    while (all.flat().length < n) {
      const got = yield* receive(nl)
      if (typeof got === 'number') throw new Error(`receive: ${got}`)
      all.push(got.map(m => ({ ...m, body: m.body.slice() })))
    }
    yield* rtnl_close(nl)
    return all
  })
  s.pass(2)
  meanwhile()
  return finish(s, r, 500)
}
const word = (b: Uint8Array, at: number): number => new DataView(b.buffer, b.byteOffset).getInt32(at, true)
const text = (b: Uint8Array, at: number): string => String.fromCharCode(...b.subarray(at, b.indexOf(0, at)))
const shape = (all: Message[][]): [type: number, flags: number, seq: number][][] =>
  all.map(together => together.map(m => [m.type, m.flags, m.seq]))

test('all that is known of a packet, and its bytes', () => {
  loadRules(s, '*mangle\n-A PREROUTING -j MARK --set-mark 0x77\nCOMMIT\n')
  loadRules(s, table('-j ULOG --ulog-nlgroup 3 --ulog-prefix "seen: "'))
  const all = hears(4, 1, () => expect(s.send(0, packet(9))[1]).toHaveLength(1))
  expect(shape(all)).toEqual([[[111, 0, 0]]])
  const b = all[0]![0]!.body
  expect([word(b, 0), word(b, 12), word(b, 48), b[84]]).toEqual([0x77, 2, 38, 14])
  expect([text(b, 16), text(b, 32), text(b, 52)]).toEqual(['eth0', 'eth1', 'seen: '])
  expect([...b.subarray(85, 99)]).toEqual([...packet(9).subarray(0, 14)])
  const bytes = packet(9).slice(14, 14 + 38)
  bytes[8]!-- // the TTL, and the checksum that goes with it
  expect([...b.subarray(165, 175)]).toEqual([...bytes.subarray(0, 10)])
  expect([...b.subarray(177, 203)]).toEqual([...bytes.subarray(12)])
  loadRules(s, '*mangle\nCOMMIT\n')
})

test('so many bytes of each, so many packets in a message; the last one says so', () => {
  loadRules(s, table('-j ULOG --ulog-cprange 20 --ulog-qthreshold 3'))
  const all = hears(1, 6, () => {
    for (let k = 1; k <= 6; k++) s.send(0, packet(k, 100))
  })
  const three = [
    [111, 2, 0],
    [111, 2, 1],
    [3, 0, 2],
  ]
  expect(shape(all)).toEqual([three, three])
  expect(all.flat().map(m => [word(m.body, 48), m.body.length, m.body[165 + 5]])).toEqual(
    [1, 2, 3, 4, 5, 6].map(k => [20, 188, k]),
  )
})

test('what waits is sent after a tenth of a second, or when the next one does not fit', () => {
  loadRules(s, table('-j ULOG --ulog-qthreshold 50'))
  expect(
    shape(
      hears(1, 2, () => {
        s.send(0, packet(1), packet(2))
        s.pass(90)
      }),
    ),
  ).toEqual([
    [
      [111, 2, 0],
      [3, 0, 1],
    ],
  ])
  // 1728 bytes hold two of 16 + 168 + 628.
  const all = hears(1, 3, () => s.send(0, packet(1, 600), packet(2, 600), packet(3, 600)))
  expect(shape(all).map(t => t.length)).toEqual([2, 1])
})

test('one that is larger than a message is sent whole; other groups hear nothing; nobody need listen', () => {
  loadRules(s, table('-m state --state NEW -j ULOG --ulog-nlgroup 2'))
  const r = start(function* () {
    const nl = (yield* rtnl_open(1, NFLOG)) as Netlink
    return yield* receive(nl)
  })
  // The tracker gathers it: FORWARD sees the whole.
  const whole = udp({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(3000))
  const pieces = fragments(whole, { src: '10.0.0.2', dst: '10.0.1.2', id: 7 }, 1500)
  const all = hears(2, 1, () => s.send(0, ...pieces))
  expect(word(all[0]![0]!.body, 48)).toBe(3028)
  expect(all[0]![0]!.body.subarray(165 + 28, 165 + 3028)).toEqual(Uint8Array.from(counting(3000)))
  expect(r.done).toBe(false)
  loadRules(s, table('-j ULOG'))
  s.send(0, packet(1))
  finish(s, r)
  expect(s.send(0, packet(1))[1]).toHaveLength(1)
})

test('what the kernel refuses', () => {
  const refuses = (spoil: (words: number[]) => void): number => {
    const [t] = parseIptables(table('-j ULOG --ulog-prefix a'), 'x')
    const { target } = t!.chains.flatMap(c => c.rules)[0]!
    if ('words' in target) spoil(target.words)
    return runTask(s, () => ipt_replace(table_blob(t!)))
  }
  expect(refuses(w => void (w[0] = 0))).toBe(-EINVAL)
  expect(refuses(w => void (w[2] = 51))).toBe(-EINVAL)
  expect(refuses(w => void w.fill(0x61616161, 3))).toBe(-EINVAL)
  expect(refuses(() => {})).toBe(0)
})

test('the module goes with what waits; nothing leaks, then or with packets that wait', () => {
  loadRules(s, table('-j ULOG --ulog-qthreshold 50'))
  s.send(0, packet(1))
  loadRules(s, '*filter\nCOMMIT\n')
  expect(runTask(s, () => delete_module('ipt_ULOG'))).toBe(0)
  loadRules(s, table('-j ULOG --ulog-qthreshold 50'))
  s.send(0, packet(1))
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
