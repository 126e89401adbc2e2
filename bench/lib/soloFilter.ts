/**
 * soloFilter.ts - a forwarded packet with a table of rules, alone on one thread: node dist/bench/lib/soloFilter.js RULES. Prints ns of
 * the kernel for each packet, of the fastest tenth of many short stretches: a busy host only makes some of them slower.
 */
import '../../test/helpers/clock.js' // first: the kernel's clock is ours
import { performance } from 'node:perf_hooks'
import { nic_page } from '../../src/arch/nic_regs.js'
import { RAM } from '../../src/arch/ram.js'
import { CNT_SENT, CONTROL, CTL_ON, CTL_RATE, CTL_SEQ } from '../../src/hw/control.js'
import { tuneCompiler } from '../../src/lab/compiler.js'
import { clock } from '../../test/helpers/clock.js'
import { loadRules } from '../../test/helpers/iptables.js'
import { Script } from '../../test/helpers/script.js'
import { ip } from '../../test/helpers/solo.js'

tuneCompiler()
const text = Buffer.from(process.argv[2] ?? '', 'base64').toString()
const seconds = Number(process.argv[3] ?? 3)
const s = new Script({
  capture: false,
  config: { slab_poison: 0 },
  ports: [
    {
      source: {
        ...{ kind: 'generate', arrivals: 'constant', sizes: [[60, 1]], flows: 16, destinations: 1 },
        ...{ dst: ip('10.0.1.2'), dst_stride: 1, src: ip('10.0.0.2'), order: 'round-robin', malformed: 0, seed: 1 },
        ...{ from: { hi: 0x02000000, lo: 0x99 }, to: { hi: 0x02000000, lo: 1 } },
      },
    },
    {},
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x77 } }],
})
if (text !== '') loadRules(s, text)
const ctl = nic_page(0) + CONTROL
RAM.i32[(ctl + CTL_ON) >> 2] = 1
RAM.f64[(ctl + CTL_RATE) >> 3] = 1e9
RAM.i32[(ctl + CTL_SEQ) >> 2] = 1
const { take_interrupts } = await import('../../src/arch/cpu.js')
const SENT = (nic_page(1) + CONTROL + CNT_SENT) >> 3
const costs: number[] = []
const { board } = s.solo
const began = performance.now()
const first = clock.ns
for (let now = began; now < began + seconds * 1000; now = performance.now()) {
  clock.ns = first + (now - began) * 1e6
  const before = RAM.f64[SENT]!
  board.step(clock.ns)
  const a = performance.now()
  take_interrupts()
  const b = performance.now()
  // A step sends at most half of what it receives: without these the transmit queue would overflow.
  for (let k = 0; k < 4; k++) if (board.nics[1]!.step(clock.ns) === 0) break
  const n = RAM.f64[SENT]! - before
  if (n >= 64 && now > began + seconds * 500) costs.push(((b - a) * 1e6) / n)
}
costs.sort((x, y) => x - y)
process.stdout.write(JSON.stringify({ ns: costs[Math.floor(costs.length / 10)], stretches: costs.length }))
