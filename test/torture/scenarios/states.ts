/** states.ts - a task sets its state and looks; another changes what it looks at and wakes it. No wake-up may be lost. */
import { type Layout, layout, line, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { cpu_relax } from '../../../src/arch/cpu.js'
import { jiffies } from '../../../src/irq/timer.js'
import { kernel_thread, schedule, set_current_state, wake_up_process } from '../../../src/sched/sched.js'
import { TASK, TASK_RUNNING, TASK_UNINTERRUPTIBLE } from '../../../src/sched/task.js'

const ROUNDS = 100_000

class shared extends Struct {
  declare done: number
  declare lost: number
  declare sleeper: number
  declare flag: number
  declare round: number
  declare seen: number
}
const SHARED: Layout<shared> = layout('torture_states', shared, {
  done: word,
  lost: word,
  sleeper: word,
  flag: line(word),
  round: line(word),
  seen: line(word),
})
const s = DEFINE_STATIC('torture_states', SHARED)
const ROUND = s.addr + SHARED.offset('round')
const SEEN = s.addr + SHARED.offset('seen')

function* sleeper(): Generator<void, number, void> {
  for (let k = 1; k <= ROUNDS; k++) {
    s.flag = 0
    store(ROUND, k)
    for (let pause = k & 31; pause > 0; pause--) load(s.addr)
    for (;;) {
      set_current_state(TASK_UNINTERRUPTIBLE)
      if (s.flag !== 0) break
      yield* schedule()
    }
    set_current_state(TASK_RUNNING)
    store(SEEN, k)
  }
  fetch_add(s.addr, 1)
  return 0
}
const sleeper_sym = symbol('states_sleeper', sleeper)

function* waker(): Generator<void, number, void> {
  const task = TASK.ref(s.sleeper)
  for (let k = 1; k <= ROUNDS; k++) {
    while (load(ROUND) < k) cpu_relax()
    for (let pause = (k >> 5) & 31; pause > 0; pause--) load(s.addr)
    s.flag = 1
    wake_up_process(task)
    const end = jiffies() + 1000
    while (load(SEEN) < k && jiffies() - end < 0) cpu_relax()
    if (load(SEEN) >= k) continue
    s.lost++
    wake_up_process(task)
    while (load(SEEN) < k) cpu_relax()
  }
  fetch_add(s.addr, 1)
  return 0
}
const waker_sym = symbol('states_waker', waker)

export function main(): void {
  s.sleeper = kernel_thread('sleeper', sleeper_sym, 0, { cpu: 0 })!.addr
  kernel_thread('waker', waker_sym, 0, { cpu: 1 })
}
