/**
 * hotplug.ts - CPU 0 stops and starts the others while they run timers, work, RCU callbacks and sleepers. Nothing may be
 * lost: what a stopped CPU had in hand goes on elsewhere, and its tasks go on when it is back.
 */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { cpu_id } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { cpu_down, cpu_online, cpu_up } from '../../../src/irq/hotplug.js'
import { on_each_cpu } from '../../../src/irq/interrupt.js'
import { init_timer, jiffies, mod_timer, msleep, TIMER, type timer_list } from '../../../src/irq/timer.js'
import { INIT_WORK, schedule_work, WORK, type work_struct } from '../../../src/irq/workqueue.js'
import { call_rcu, RCU_HEAD, type rcu_head, synchronize_kernel } from '../../../src/rcu/rcupdate.js'
import { kernel_thread } from '../../../src/sched/sched.js'

const ROUNDS = 40
const CHANGES = 25

class shared extends Struct {
  declare done: number
  declare wrong: number
  declare changes: number
  declare calls: number
  declare fired: number
  declare worked: number
  declare reclaimed: number
}
const SHARED: Layout<shared> = layout('torture_hotplug', shared, {
  done: word,
  wrong: word,
  changes: word,
  calls: word,
  fired: word,
  worked: word,
  reclaimed: word,
})
const s = DEFINE_STATIC('torture_hotplug', SHARED)
const at = (field: keyof shared & string): number => s.addr + SHARED.offset(field)

class hand extends Struct {
  declare timer: timer_list
  declare work: work_struct
  declare rcu: rcu_head
  declare fired: number
  declare worked: number
  declare reclaimed: number
}
const HAND: Layout<hand> = layout('torture_hand', hand, {
  timer: embed(TIMER),
  work: embed(WORK),
  rcu: embed(RCU_HEAD),
  fired: word,
  worked: word,
  reclaimed: word,
})
const hands = DEFINE_PER_CPU('torture_hand', HAND)

const fired_sym = symbol('hotplug_fired', (cpu: number) => {
  hands.cpu(cpu).fired++
  fetch_add(at('fired'), 1)
})
const worked_sym = symbol('hotplug_worked', function* (cpu: number): Generator<void, void, void> {
  hands.cpu(cpu).worked++
  fetch_add(at('worked'), 1)
})
const reclaimed_sym = symbol('hotplug_reclaimed', (head: number) => {
  HAND.container_of('rcu', head).reclaimed++
  fetch_add(at('reclaimed'), 1)
})

/** One of each at a time, on this CPU; waits for all three, wherever they end. */
function* worker(cpu: number): Generator<void, number, void> {
  const h = hands.cpu(cpu)
  init_timer(h.timer, fired_sym, cpu)
  INIT_WORK(h.work, worked_sym, cpu)
  for (let k = 1; k <= ROUNDS; k++) {
    if (cpu_id !== cpu) s.wrong++
    mod_timer(h.timer, jiffies() + 2)
    schedule_work(h.work)
    call_rcu(h.rcu, reclaimed_sym)
    while (h.fired < k || h.worked < k || h.reclaimed < k) yield* msleep(1)
    if (h.fired !== k || h.worked !== k || h.reclaimed !== k) s.wrong++
  }
  fetch_add(s.addr, 1)
  return 0
}
const worker_sym = symbol('hotplug_worker', worker)

const called_sym = symbol('hotplug_called', () => {
  fetch_add(at('calls'), 1)
})

function* changer(): Generator<void, number, void> {
  if ((yield* cpu_down(0)) === 0) s.wrong++
  for (let k = 0; k < CHANGES; k++) {
    const cpu = 1 + (k % (num_cpus() - 1))
    if ((yield* cpu_down(cpu)) !== 0 || cpu_online(cpu)) s.wrong++
    if ((yield* cpu_down(cpu)) === 0) s.wrong++
    const before = s.calls
    on_each_cpu(called_sym, 0)
    if (s.calls - before !== num_cpus() - 1) s.wrong++
    yield* synchronize_kernel()
    yield* msleep(3)
    if ((yield* cpu_up(cpu)) !== 0 || !cpu_online(cpu)) s.wrong++
    if ((yield* cpu_up(cpu)) === 0) s.wrong++
    yield* msleep(2)
    s.changes++
  }
  fetch_add(s.addr, 1)
  return 0
}
const changer_sym = symbol('hotplug_changer', changer)

export function main(): void {
  for (let cpu = 0; cpu < num_cpus(); cpu++) kernel_thread('worker', worker_sym, cpu, { cpu })
  kernel_thread('changer', changer_sym, 0, { cpu: 0 })
}
