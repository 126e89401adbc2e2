/** calls.ts - every CPU calls all others, again and again: who waits for the call lock answers calls meanwhile. */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { on_each_cpu } from '../../../src/irq/interrupt.js'
import { cond_resched, kernel_thread } from '../../../src/sched/sched.js'

const CALLS = 100

class shared extends Struct {
  declare done: number
  declare called: number
}
const SHARED: Layout<shared> = layout('torture_calls', shared, { done: word, called: word })
const s = DEFINE_STATIC('torture_calls', SHARED)

const called_sym = symbol('calls_called', () => {
  fetch_add(s.addr + SHARED.offset('called'), 1)
})

function* caller(): Generator<void, number, void> {
  for (let k = 0; k < CALLS; k++) {
    on_each_cpu(called_sym, 0)
    yield* cond_resched()
  }
  fetch_add(s.addr, 1)
  return 0
}
const caller_sym = symbol('calls_caller', caller)

export function main(): void {
  for (let cpu = 0; cpu < num_cpus(); cpu++) kernel_thread('caller', caller_sym, 0, { cpu })
}
