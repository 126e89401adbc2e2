/** halts.ts - CPU 0 stops the last CPU and then calls all others without end, for a machine that is halted meanwhile. */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { cpu_down, cpu_online } from '../../../src/irq/hotplug.js'
import { smp_call_function } from '../../../src/irq/interrupt.js'
import { cond_resched, kernel_thread, schedule } from '../../../src/sched/sched.js'

class shared extends Struct {
  declare calls: number
  declare called: number
  declare ran: number
  declare ran_then: number
}
const SHARED: Layout<shared> = layout('torture_halts', shared, { calls: word, called: word, ran: word, ran_then: word })
const s = DEFINE_STATIC('torture_halts', SHARED)

const called_sym = symbol('halts_called', () => {
  fetch_add(s.addr + SHARED.offset('called'), 1)
})

function* caller(): Generator<void, number, void> {
  if ((yield* cpu_down(num_cpus() - 1)) === 0) s.ran_then = s.ran
  for (;;) {
    smp_call_function(called_sym, 0)
    // CPU 1 is called while it is online; a CPU that has left for a halt is not waited for.
    if (s.called > s.calls) s.calls++
    else if (cpu_online(1)) throw new Error('a CPU that is online was not called')
    yield* cond_resched()
  }
}
const caller_sym = symbol('halts_caller', caller)

function* runner(): Generator<void, number, void> {
  for (;;) {
    s.ran++
    yield* schedule()
  }
}
const runner_sym = symbol('halts_runner', runner)

export function main(): void {
  kernel_thread('caller', caller_sym, 0, { cpu: 0 })
  kernel_thread('runner', runner_sym, 0, { cpu: num_cpus() - 1 })
}
