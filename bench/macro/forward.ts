/** forward.ts - what one forwarded 64-byte packet costs a CPU, the whole path, against the host kernel and the bare loop. */
import { Machine, sleep } from '../../src/lab/machine.js'
import { takeSample } from '../../src/lab/sample.js'
import { type ForwardPoint, forwardRows } from '../lib/forwardRows.js'
import type { Measure } from '../lib/measure.js'
import { benchRouter, ROUTES } from '../lib/router.js'

/** More than any CPU here forwards: its rings never run empty. */
const FLOOD_PPS = 8_000_000
const WARM_MS = 1500
/** Many short ones: a shared host is quiet for a moment more often than for a second. */
const WINDOW_MS = 50
const WINDOWS = 60

interface Window {
  delivered_pps: number
  idle: number
}

/** flood - packets per second that a machine delivers when it is offered more than it can take, window by window. */
export async function flood(machine: Machine): Promise<Window[]> {
  await machine.powerOn()
  await machine.source(0, { on: true, rate: FLOOD_PPS })
  await sleep(WARM_MS)
  const windows: Window[] = []
  for (let k = 0; k < WINDOWS; k++) {
    const a = takeSample(machine)
    await sleep(WINDOW_MS)
    machine.check()
    const b = takeSample(machine)
    const spent = (name: string): number => b.cpu.reduce((n, c, cpu) => n + c[name]! - a.cpu[cpu]![name]!, 0)
    windows.push({
      delivered_pps: ((b.ports[1]!.sent - a.ports[1]!.sent) / (b.at - a.at)) * 1000,
      idle: spent('idle') / ((b.at - a.at) * 1e6 * b.cpu.length),
    })
  }
  return windows
}

/** As the host kernel is measured: the better of the windows, since noise of a shared host only makes one slower. */
async function point(destinations: number, seed: number): Promise<ForwardPoint> {
  const machine = new Machine(benchRouter({ destinations, seed }))
  try {
    const windows = await flood(machine)
    const best = Math.max(...windows.map(w => w.delivered_pps))
    return { destinations, routes: ROUTES, ns: 1e9 / best, details: { windows } }
  } finally {
    await machine.destroy()
  }
}

export const forward: Measure = {
  name: 'forward',
  async run(context) {
    const points: ForwardPoint[] = []
    for (const destinations of [1, 4096]) points.push(await point(destinations, context.seed))
    return forwardRows(points, context)
  },
}
