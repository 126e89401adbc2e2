/**
 * changes.ts - CPU 0 stops and starts CPU 1 while the last CPU calls all others, and polls in between; two more of its
 * tasks wait for each other by polling.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load } from '../../../src/arch/atomic.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { cpu_down, cpu_up } from '../../../src/irq/hotplug.js'
import { on_each_cpu } from '../../../src/irq/interrupt.js'
import { cond_resched, kernel_thread } from '../../../src/sched/sched.js'

const CHANGES = 50

class shared extends Struct {
  declare done: number
  declare wrong: number
  declare called: number
  declare calls: number
  declare turn: number
}
const SHARED: Layout<shared> = layout('torture_changes', shared, {
  done: word,
  wrong: word,
  called: word,
  calls: word,
  turn: word,
})
const s = DEFINE_STATIC('torture_changes', SHARED)

const called_sym = symbol('changes_called', () => {
  fetch_add(s.addr + SHARED.offset('called'), 1)
})

function* caller(): Generator<void, number, void> {
  while (load(s.addr) < 3) {
    on_each_cpu(called_sym, 0)
    s.calls++
    yield* cond_resched()
  }
  return 0
}
const caller_sym = symbol('changes_caller', caller)

function* changer(): Generator<void, number, void> {
  for (let k = 0; k < CHANGES; k++) {
    if ((yield* cpu_down(1)) !== 0) s.wrong++
    if ((yield* cpu_up(1)) !== 0) s.wrong++
  }
  fetch_add(s.addr, 1)
  return 0
}
const changer_sym = symbol('changes_changer', changer)

/** Two of these hand the turn to each other: each polls until it is its own. */
function* poller(me: number): Generator<void, number, void> {
  for (let k = 0; k < 3; k++) {
    while (s.turn !== me) yield* cond_resched()
    s.turn = me ^ 1
  }
  fetch_add(s.addr, 1)
  return 0
}
const poller_sym = symbol('changes_poller', poller)

export function main(): void {
  kernel_thread('changer', changer_sym, 0, { cpu: 0 })
  kernel_thread('caller', caller_sym, 0, { cpu: num_cpus() - 1 })
  for (const me of [0, 1]) kernel_thread('poller', poller_sym, me, { cpu: num_cpus() - 1 })
}
