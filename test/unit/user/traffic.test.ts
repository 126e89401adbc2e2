/** The traffic generator and its sink, over loopback and against frames that the test makes. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { exec, process_exit_code } from '../../../src/syscall/exec.js'
import { console_reader, sh } from '../../helpers/console.js'
import { parse, udpFrame } from '../../helpers/frames.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  neighbours: [{ address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } }],
  config: { loopback: 1, user_procs: 4 },
})
const SUM = / in [0-9.]+ s: \d+\/s, [0-9.]+ Mbit\/s/

/** A wire on which nobody answers. */
const keep =
  (frames: Uint8Array[]) =>
  (frame: Uint8Array): Uint8Array[] => {
    frames.push(frame)
    return []
  }

/** A sink that listens; what it says at its end. */
function sinkOf(args: string, feed: () => void): { code: number | null; out: string } {
  const index = exec(['udpsink', ...args.split(' ')])
  s.pass(1)
  feed()
  let out = ''
  for (let k = 0; k < 2000 && process_exit_code(index) === null; k++) {
    s.pass(1)
    out += console_reader()
      .drain()
      .filter(r => r.process === index)
      .map(r => r.text)
      .join('')
  }
  return { code: process_exit_code(index), out }
}

test.each([
  [12, 50, 2000],
  [64, 300, 0],
  [1472, 100, 5000],
  [9000, 20, 1000],
])('%i bytes, %i datagrams, %i a second: all come as they were sent', (size, count, rate) => {
  const { code } = sinkOf('-w 1', () => {
    const said = sh(s, `udpgen -s ${size} -c ${count} -r ${rate} 127.0.0.1`)
    expect([said.code, said.err]).toEqual([0, ''])
    expect(said.out).toMatch(new RegExp(`^sent ${count} datagrams of ${size} bytes${SUM.source}\n$`))
  })
  expect(code).toBe(0)
})

test('a rate is kept to a tick, whatever the count', () => {
  const frames: Uint8Array[] = []
  const said = sh(s, 'udpgen -c 0 -d 1 -r 2500 10.0.0.2', {}, 2000, keep(frames))
  const sent = Number(/^sent (\d+)/.exec(said.out)![1])
  expect(sent).toBeGreaterThanOrEqual(2495)
  expect(sent).toBeLessThanOrEqual(2505)
  expect(frames.length).toBe(sent)
})

/** Datagram `seq` of `total`, as the generator makes them; written anew here, so that an error there does not hide. */
function datagram(seq: number, total: number, size = 20): Uint8Array {
  const b = Uint8Array.from({ length: size }, (_, k) => (seq * 31 + k * 7 + Math.floor(k / 256)) % 256)
  const view = new DataView(b.buffer)
  view.setUint32(0, 0x736f6674, true)
  view.setUint32(4, seq, true)
  view.setUint32(8, total, true)
  return b
}
const from2 = (data: Uint8Array): Uint8Array =>
  udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', sport: 999, dport: 5001 }, data)

test('what is on the wire is what the sink wants', () => {
  const frames: Uint8Array[] = []
  sh(s, 'udpgen -s 300 -c 3 -r 0 10.0.0.2', {}, 100, keep(frames))
  expect(frames.map(parse).map(f => [...f.payload.slice(8)])).toEqual([0, 1, 2].map(seq => [...datagram(seq, 3, 300)]))
})

test('what is missing, late, twice and wrong is told apart', () => {
  const wrong = datagram(3, 10)
  wrong[15]! ^= 1
  const order = [0, 1, 4, 2, 5, 5, 7]
  const { code, out } = sinkOf('-w 0.05', () => {
    s.send(0, ...order.map(k => from2(datagram(k, 10))), from2(wrong), from2(Uint8Array.of(1, 2)))
  })
  expect(out).toMatch(/^10.0.0.2:999: received 6 of 10 datagrams, 4 lost \(40.00%\), 1 late, 1 twice, 2 bad: /)
  expect(code).toBe(1)
})

test('without an end, the highest number is what counts; two senders; silence; refusal; usage', () => {
  expect(sinkOf('-w 0.05', () => s.send(0, from2(datagram(0, 0)), from2(datagram(2, 0)))).out).toContain(
    'received 2 of 3 datagrams, 1 lost (33.33%)',
  )
  expect(sinkOf('-n 2 -w 0.05', () => s.send(0, from2(datagram(0, 1)))).code).toBe(1)
  expect(sinkOf('-w 0.02', () => {})).toEqual({ code: 1, out: 'received nothing\n' })
  const refused = sh(s, 'udpgen -c 3 -r 100 -p 9 127.0.0.1')
  expect([refused.code, /, \d refused, 0 failed\n$/.test(refused.out)]).toEqual([1, true])
  for (const line of ['udpgen', 'udpgen -s 11 127.0.0.1', 'udpgen -r x 127.0.0.1', 'udpsink -w 0', 'udpsink x'])
    expect(sh(s, line).code).toBe(2)
  expect(sh(s, 'udpgen 192.0.2.1').err).toBe('udpgen: Network is unreachable\n')
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
