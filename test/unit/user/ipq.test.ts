/** The user queue and its program: what it is told, what it decides, and what becomes of packets when it ends. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { proc_read } from '../../../src/fs/proc.js'
import { exec, process_exit_code } from '../../../src/syscall/exec.js'
import { close, type Libc } from '../../../src/user/libc.js'
import { type Netlink, receive, request, rtnl_open, send_bytes, u32 } from '../../../src/user/libnetlink.js'
import { console_reader, sh } from '../../helpers/console.js'
import { counting, udpFrame } from '../../helpers/frames.js'
import { loadRules } from '../../helpers/iptables.js'
import { run } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  config: { loopback: 1, user_procs: 8 },
})
loadRules(s, '*filter\n:FORWARD ACCEPT\n-A FORWARD -p udp -j QUEUE\nCOMMIT\n')

const frame = (dport: number) => udpFrame({ src: '10.0.0.2', dst: '10.0.1.2', dport }, counting(18))
/** The program beside these frames. @returns how many came out, what it said, its exit code */
function under(argv: string[], dports: number[]): { out: number; text: string; code: number | null; drops: number } {
  const reader = console_reader()
  reader.drain()
  const index = exec(argv)
  s.pass(5)
  s.out()
  let out = 0
  const fate = s.account(() => {
    for (const dport of dports) {
      out += s.send(0, frame(dport))[1]!.length
      s.pass(2)
    }
    out += s.out()[1]!.length
  })
  const text = reader
    .drain()
    .map(r => r.text)
    .join('')
  return { out, text, code: process_exit_code(index), drops: fate.drops['netfilter'] ?? 0 }
}

test('all that waits goes on, and each packet is told of', () => {
  const { out, text, code } = under(['ipq', '--count', '2'], [53, 80])
  expect([out, code]).toEqual([2, 0])
  expect(text.replace(/^\d+/gm, 'N')).toBe('N FORWARD in=eth0 out=eth1 len=46 ACCEPT\n'.repeat(2))
})

test('one in so many is dropped; only what is for a port; without bytes nobody sees a length', () => {
  expect(under(['ipq', '-q', '--drop-every', '2', '-n', '4'], [1, 2, 3, 4])).toMatchObject({
    out: 2,
    code: 0,
    drops: 2,
  })
  expect(under(['ipq', '-q', '--dport', '53', '-n', '3'], [53, 80, 53])).toMatchObject({ out: 1, code: 0, drops: 2 })
  expect(under(['ipq', '-m', 'meta', '-n', '1'], [9]).text).toContain('in=eth0 out=eth1 ACCEPT')
})

test('wrong usage, and another program has the queue', () => {
  expect(sh(s, 'ipq -m meta -p 53')).toMatchObject({ code: 2, err: expect.stringContaining('usage: ipq') })
  expect(sh(s, 'ipq -d 0').code).toBe(2)
  expect(under(['ipq', '-q', '-n', '2'], [1]).code).toBe(null)
  expect(sh(s, 'ipq')).toMatchObject({ code: 1, err: 'ipq: Device or resource busy\n' })
  expect(under(['echo', 'x'], [2]).out).toBe(1) // the second that the first one waits for
  expect(sh(s, 'ipq', { uid: 1000 })).toMatchObject({ code: 1, err: 'ipq: Operation not permitted\n' })
})

test('a program that ends without a verdict: what waits is dropped, and nothing is told to anybody any more', () => {
  const mode = (value: number) => [...u32(value), ...u32(0), ...u32(0)]
  const waiting = () => proc_read('/proc/net/ip_queue')!.match(/Queue length +: (\d+)/)![1]
  let held = ''
  const fate = s.account(() => {
    run(s, function* (): Libc {
      const nl = (yield* rtnl_open(0, 3)) as Netlink
      yield* send_bytes(nl, request(nl, 17, 0, mode(2)))
      s.solo.board.nics[0]!.arrive(frame(1))
      s.solo.board.nics[0]!.arrive(frame(2))
      const first = yield* receive(nl)
      expect(first).toMatchObject([{ type: 19, body: { length: 72 + 46 } }])
      yield* receive(nl)
      held = waiting()!
      return yield* close(nl.fd)
    })
  })
  expect([held, waiting()]).toEqual(['2', '0'])
  expect(fate.drops).toEqual({ netfilter: 2 })
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
