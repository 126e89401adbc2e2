/** micro.ts - times one primitive with tinybench, on a thread of its own that is a CPU of a bare machine. */
import { Bench } from 'tinybench'
import { bareMachine, type LockKind, onCpu } from './machine.js'

/** Operations in one timed call: a call of the clock costs as much as five lock pairs. */
export const BATCH = 2000

export interface MicroTask {
  name: string
  /** does BATCH operations; the returned number keeps the optimiser honest */
  batch(): number
}
export interface MicroResult {
  name: string
  /** median, and the fastest quarter's edge of a noisy host */
  ns: number
  p75: number
  samples: number
}

/** timeTasks - runs in the CPU's thread: median ns per operation of each task. */
export async function timeTasks(tasks: readonly MicroTask[], ms = 300): Promise<MicroResult[]> {
  const results: MicroResult[] = []
  let sink = 0
  for (const task of tasks) {
    const bench = new Bench({ time: ms, warmupTime: ms / 3 })
    bench.add(task.name, () => {
      sink = (sink + task.batch()) | 0
    })
    await bench.run()
    const r = bench.tasks[0].result
    if (!('latency' in r)) throw new Error(`${task.name}: ${'error' in r ? String(r.error) : r.state}`)
    const per = 1e6 / BATCH
    results.push({
      name: task.name,
      ns: r.latency.p50 * per,
      p75: r.latency.p75 * per,
      samples: r.latency.samplesCount,
    })
  }
  if (sink === 0.5) console.log(sink)
  return results
}

/** runMicro - times the tasks of bench/micro/NAME on CPU 0 of a machine with that lock kind. */
export function runMicro(name: string, kind: LockKind = 'tas', ms = 300): Promise<MicroResult[]> {
  const module = new URL(`../micro/${name}.js`, import.meta.url).href
  return onCpu<MicroResult[]>(bareMachine(1, kind), 0, kind, module, ms)
}
