/** rests.ts - a task that rests at the top of its program until the host wakes it to break an invariant. */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { BUG_ON, cpu_id } from '../../../src/arch/cpu.js'
import { tick_hooks } from '../../../src/irq/timer.js'
import { kernel_thread, rest, set_current_state, wake_up_process } from '../../../src/sched/sched.js'
import { TASK, TASK_INTERRUPTIBLE, TASK_RUNNING } from '../../../src/sched/task.js'

class trigger extends Struct {
  declare pulled: number
  declare task: number
}
const TRIGGER: Layout<trigger> = layout('test_trigger', trigger, { pulled: word, task: word })
const s = DEFINE_STATIC('test_trigger', TRIGGER)

tick_hooks.push(() => {
  if (cpu_id === 0 && s.pulled !== 0) wake_up_process(TASK.ref(s.task))
})

function* sleeper(): Generator<void, number, void> {
  for (;;) {
    set_current_state(TASK_INTERRUPTIBLE)
    if (s.pulled === 0) yield* rest()
    set_current_state(TASK_RUNNING)
    BUG_ON(s.pulled !== 0, 'trigger pulled')
  }
}
const sleeper_sym = symbol('test_sleeper', sleeper)

export function main(): void {
  s.task = kernel_thread('sleeper', sleeper_sym, 0, { cpu: 0 })!.addr
}
