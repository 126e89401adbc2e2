/**
 * probe.ts - a process that times parts of the kernel from inside, for `softnet calibrate`: what takes so little that no load
 * from outside shows it. Loaded as a program, on a machine of one CPU that has nothing else to do.
 */
import { embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { BUG_ON, cpu_relax, now_ns } from '../arch/cpu.js'
import { kernel_thread, schedule, set_current_state, wake_up_process } from '../sched/sched.js'
import { TASK_INTERRUPTIBLE, type task_struct } from '../sched/task.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../sync/spinlock.js'

/** Of so many batches the median counts; half as many before them warm up. A batch is so many calls. */
const BATCHES = 200
const TIMES = 1000

class probe extends Struct {
  declare lock: spinlock_t
  declare spin_lock: number
  declare cpu_relax: number
  declare schedule: number
  declare wake_up_process: number
  declare done: number
}
/** Times of one call in ps. */
const PROBE: Layout<probe> = layout('probe', probe, {
  lock: embed(SPINLOCK),
  spin_lock: word,
  cpu_relax: word,
  schedule: word,
  wake_up_process: word,
  done: word,
})
const results = DEFINE_STATIC('probe', PROBE)

/** ps of one of so many batches of calls: the one in the middle. */
function middle(batches: number[]): number {
  batches.sort((a, b) => a - b)
  return Math.round((batches[batches.length >> 1]! * 1000) / TIMES)
}

function* timed(batch: () => void): Generator<void, number, void> {
  const batches: number[] = []
  for (let k = -BATCHES / 2; k < BATCHES; k++) {
    const start = now_ns()
    batch()
    if (k >= 0) batches.push(now_ns() - start)
    yield* schedule()
  }
  return middle(batches)
}

function lock_pairs(): void {
  for (let k = 0; k < TIMES; k++) {
    spin_lock(results.lock)
    spin_unlock(results.lock)
  }
}

function relaxes(): void {
  for (let k = 0; k < TIMES; k++) cpu_relax()
}

/** Sleeps whenever it runs, until somebody wakes it. */
function* sleeper(): Generator<void, number, void> {
  while (results.done === 0) {
    set_current_state(TASK_INTERRUPTIBLE)
    yield* schedule()
  }
  return 0
}
const sleeper_sym = symbol('probe_sleeper', sleeper)

/** One turn: give the CPU away, after waking `other` if there is one, which sleeps again at once. */
function* turns(other: task_struct | null): Generator<void, number, void> {
  const batches: number[] = []
  for (let k = -BATCHES / 2; k < BATCHES; k++) {
    const start = now_ns()
    for (let n = 0; n < TIMES; n++) {
      if (other !== null) wake_up_process(other)
      yield* schedule()
    }
    if (k >= 0) batches.push(now_ns() - start)
  }
  return middle(batches)
}

function* prober(): Generator<void, number, void> {
  results.spin_lock = yield* timed(lock_pairs)
  results.cpu_relax = yield* timed(relaxes)
  results.schedule = yield* turns(null)
  const other = kernel_thread('probe_sleeper', sleeper_sym, 0, { cpu: 0 })
  BUG_ON(other === null, 'no sleeper')
  if (other === null) return 1
  yield* schedule()
  const woken = yield* turns(other) // two switches and the waking
  results.wake_up_process = Math.max(0, woken - 2 * results.schedule)
  results.done = 1
  wake_up_process(other)
  return 0
}
const prober_sym = symbol('prober', prober)

export function main(): void {
  spin_lock_init(results.lock)
  kernel_thread('prober', prober_sym, 0, { cpu: 0 })
}
