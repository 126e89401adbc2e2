/** soloForward.ts - the forwarding path alone on one thread, for profiles: node --cpu-prof dist/bench/lib/soloForward.js */
import { performance } from 'node:perf_hooks'
import { nic_page } from '../../src/arch/nic_regs.js'
import { RAM } from '../../src/arch/ram.js'
import { CNT_SENT, CONTROL, CTL_ON, CTL_RATE, CTL_SEQ } from '../../src/hw/control.js'
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
const { take_interrupts } = await import('../../src/arch/cpu.js')
const SENT = (nic_page(1) + CONTROL + CNT_SENT) >> 3
const end = performance.now() + seconds * 1000
const half = end - seconds * 500
const kernel: number[] = []
const board: number[] = []
while (performance.now() < end) {
  for (let k = 0; k < 100; k++) {
    const before = RAM.f64[SENT]!
    const a = performance.now()
    solo.board.step(a * 1e6)
    const b = performance.now()
    take_interrupts()
    const c = performance.now()
    // A step sends at most half of what it receives: without these the transmit queue would overflow.
    for (let n = 0; n < 4; n++) if (solo.board.nics[1]!.step(c * 1e6) === 0) break
    const n = RAM.f64[SENT]! - before
    if (n < 64 || a < half) continue
    kernel.push(((c - b) * 1e6) / n)
    board.push(((b - a + performance.now() - c) * 1e6) / n)
  }
}
/** Of many short stretches the fast ones: a busy host only makes some of them slower. */
function quantile(values: number[], p: number): string {
  return values.sort((x, y) => x - y)[Math.floor(values.length * p)]!.toFixed(0)
}
process.stdout.write(
  `ns per packet, fastest tenth and median: kernel ${quantile(kernel, 0.1)} ${quantile(kernel, 0.5)}, ` +
    `board ${quantile(board, 0.1)} ${quantile(board, 0.5)}\n`,
)
