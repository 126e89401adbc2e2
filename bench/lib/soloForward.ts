/** soloForward.ts - the forwarding path alone on one thread, for profiles: node --cpu-prof dist/bench/lib/soloForward.js */
import { performance } from 'node:perf_hooks'
import { nic_page } from '../../src/arch/nic_regs.js'
import { RAM } from '../../src/arch/ram.js'
import { CONTROL, CTL_ON, CTL_RATE, CTL_SEQ } from '../../src/hw/control.js'
import { tuneCompiler } from '../../src/lab/compiler.js'
import { ip, Solo } from '../../test/helpers/solo.js'

tuneCompiler()
const destinations = Number(process.argv[2] ?? 1)
const seconds = Number(process.argv[3] ?? 3)
const solo = new Solo({
  capture: false,
  ports: [
    {
      source: {
        kind: 'generate',
        arrivals: 'constant',
        sizes: [[60, 1]],
        flows: Math.max(16, destinations),
        destinations,
        dst: ip('10.0.1.2'),
        dst_stride: destinations === 1 ? 1 : 0,
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
  config: process.env['RING'] ? { rx_ring: Number(process.env['RING']), tx_ring: Number(process.env['RING']) } : {},
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x77 } }],
})
const ctl = nic_page(0) + CONTROL
RAM.i32[(ctl + CTL_ON) >> 2] = 1
RAM.f64[(ctl + CTL_RATE) >> 3] = 1e9
RAM.i32[(ctl + CTL_SEQ) >> 2] = 1
let board = 0
let cpu = 0
const { take_interrupts } = await import('../../src/arch/cpu.js')
const end = performance.now() + seconds * 1000
let mark = 0
let sent = 0
while (performance.now() < end) {
  for (let k = 0; k < 100; k++) {
    const a = performance.now()
    solo.board.step(a * 1e6)
    const b = performance.now()
    take_interrupts()
    const c = performance.now()
    cpu += c - b
    // A step sends at most half of what it receives: without these the transmit queue would overflow.
    for (let n = 0; n < 4; n++) if (solo.board.nics[1]!.step(c * 1e6) === 0) break
    board += b - a + (performance.now() - c)
  }
  if (mark === 0 && performance.now() > end - seconds * 500) {
    mark = RAM.f64[(nic_page(1) + CONTROL + 64) >> 3]!
    cpu = 0
    board = 0
  }
}
sent = RAM.f64[(nic_page(1) + CONTROL + 64) >> 3]! - mark
process.stdout.write(
  `${sent} packets, kernel ${((cpu * 1e6) / sent).toFixed(0)} ns, board ${((board * 1e6) / sent).toFixed(0)} ns per packet\n`,
)
