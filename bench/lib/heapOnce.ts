/** heapOnce.ts - a process that forwards on one thread and prints the JavaScript heap that a packet costs it. */
import { performance } from 'node:perf_hooks'
import { take_interrupts } from '../../src/arch/cpu.js'
import { nic_page } from '../../src/arch/nic_regs.js'
import { RAM } from '../../src/arch/ram.js'
import { CNT_SENT, CONTROL, CTL_ON, CTL_RATE, CTL_SEQ } from '../../src/hw/control.js'
import { ip, Solo } from '../../test/helpers/solo.js'

const WARM_MS = 2000
const PACKETS = 300_000

const solo = new Solo({
  capture: false,
  ports: [
    {
      source: {
        kind: 'generate',
        arrivals: 'constant',
        sizes: [[60, 1]],
        flows: 64,
        destinations: 64,
        dst: ip('10.9.0.1'),
        dst_stride: 1,
        src: ip('10.0.0.2'),
        order: 'round-robin',
        malformed: 0,
        seed: 1,
        from: { hi: 0x02000000, lo: 0x99 },
        to: { hi: 0x02000000, lo: 1 },
      },
    },
    {},
  ],
  routes: [
    {
      dst: ip('10.9.0.0'),
      prefixlen: 16,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.0.1.2'), dev: 'eth1', weight: 1 }],
    },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x77 } }],
})
const ctl = nic_page(0) + CONTROL
RAM.i32[(ctl + CTL_ON) >> 2] = 1
RAM.f64[(ctl + CTL_RATE) >> 3] = 1e9
RAM.i32[(ctl + CTL_SEQ) >> 2] = 1
const sent = (): number => RAM.f64[(nic_page(1) + CONTROL + CNT_SENT) >> 3]!

/** Time is counted in steps: the clock would allocate a number for each. */
let now = performance.now() * 1e6
function round(): void {
  now += 50_000
  solo.board.step(now)
  take_interrupts()
  for (let n = 0; n < 4; n++) if (solo.board.nics[1]!.step(now) === 0) break
}

const warm = performance.now() + WARM_MS
while (performance.now() < warm) for (let k = 0; k < 100; k++) round()
const results: number[] = []
while (results.length < 5) {
  globalThis.gc!()
  const from = sent()
  const before = process.memoryUsage().heapUsed
  while (sent() - from < PACKETS) round()
  const used = process.memoryUsage().heapUsed - before
  if (used >= 0) results.push(used / (sent() - from)) // else a collection fell into it: once more
}
process.stdout.write(JSON.stringify({ bytes: results.sort((a, b) => a - b)[2], results }))
