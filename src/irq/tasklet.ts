/**
 * tasklet.ts - small deferred functions: one runs on one CPU at a time, and once for any number of schedules.
 *
 * Lock charter
 *   The per-CPU lists belong to their CPU, with interrupts off. state and count are atomic words: SCHED owns the queueing,
 *   RUN owns the running.
 */
import { atomic, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { fetch_add, fetch_and, fetch_or, load } from '../arch/atomic.js'
import {
  BUG_ON,
  cpu_relax,
  local_irq_disable,
  local_irq_enable,
  local_irq_restore,
  local_irq_save,
} from '../arch/cpu.js'
import { cond_resched } from '../sched/sched.js'
import { dead_hooks } from './hotplug.js'
import { __raise_softirq_irqoff, HI_SOFTIRQ, open_softirq, raise_softirq_irqoff, TASKLET_SOFTIRQ } from './softirq.js'

const TASKLET_STATE_SCHED = 1
const TASKLET_STATE_RUN = 2

export class tasklet_struct extends Struct {
  declare next: number
  declare state: number
  declare count: number
  declare func: Sym<(data: number) => void>
  declare data: number
}
export const TASKLET: Layout<tasklet_struct> = layout('tasklet_struct', tasklet_struct, {
  next: own(word), // of the CPU that has it queued: address of the next one
  state: atomic(word),
  count: atomic(word), // disabled when not 0
  func: word,
  data: word,
})
const STATE = TASKLET.offset('state')
const COUNT = TASKLET.offset('count')

class tasklet_head extends Struct {
  declare hi: number
  declare list: number
}
const HEAD: Layout<tasklet_head> = layout('tasklet_head', tasklet_head, { hi: own(word), list: own(word) })
const heads = DEFINE_PER_CPU('tasklet_vec', HEAD)
const mine = heads.mine

export function tasklet_init(t: tasklet_struct, func: Sym<(data: number) => void>, data: number): void {
  t.next = 0
  t.state = 0
  t.count = 0
  t.func = func
  t.data = data
}

/** tasklet_schedule - run it soon on this CPU; nothing happens when it is scheduled already. @context any */
export function tasklet_schedule(t: tasklet_struct): void {
  if ((fetch_or(t.addr + STATE, TASKLET_STATE_SCHED) & TASKLET_STATE_SCHED) !== 0) return
  const flags = local_irq_save()
  t.next = mine.list
  mine.list = t.addr
  raise_softirq_irqoff(TASKLET_SOFTIRQ)
  local_irq_restore(flags)
}
/** tasklet_hi_schedule - before all other softirqs. */
export function tasklet_hi_schedule(t: tasklet_struct): void {
  if ((fetch_or(t.addr + STATE, TASKLET_STATE_SCHED) & TASKLET_STATE_SCHED) !== 0) return
  const flags = local_irq_save()
  t.next = mine.hi
  mine.hi = t.addr
  raise_softirq_irqoff(HI_SOFTIRQ)
  local_irq_restore(flags)
}

export function tasklet_disable_nosync(t: tasklet_struct): void {
  fetch_add(t.addr + COUNT, 1)
}
/** tasklet_disable - and it is not running when this returns. @context process */
export function tasklet_disable(t: tasklet_struct): void {
  tasklet_disable_nosync(t)
  while ((load(t.addr + STATE) & TASKLET_STATE_RUN) !== 0) cpu_relax()
}
export function tasklet_enable(t: tasklet_struct): void {
  fetch_add(t.addr + COUNT, -1)
}

/** tasklet_kill - it is neither scheduled nor running when this returns. @context process */
export function* tasklet_kill(t: tasklet_struct): Generator<void, void, void> {
  while ((fetch_or(t.addr + STATE, TASKLET_STATE_SCHED) & TASKLET_STATE_SCHED) !== 0) yield* cond_resched()
  while ((load(t.addr + STATE) & TASKLET_STATE_RUN) !== 0) cpu_relax()
  fetch_and(t.addr + STATE, ~TASKLET_STATE_SCHED)
}

function run_one(t: tasklet_struct): boolean {
  if ((fetch_or(t.addr + STATE, TASKLET_STATE_RUN) & TASKLET_STATE_RUN) !== 0) return false
  if (load(t.addr + COUNT) !== 0) {
    fetch_and(t.addr + STATE, ~TASKLET_STATE_RUN)
    return false
  }
  const was = fetch_and(t.addr + STATE, ~TASKLET_STATE_SCHED)
  BUG_ON((was & TASKLET_STATE_SCHED) === 0, 'tasklet not scheduled')
  call(t.func)(t.data)
  fetch_and(t.addr + STATE, ~TASKLET_STATE_RUN)
  return true
}

function action(hi: boolean): void {
  local_irq_disable()
  let at = hi ? mine.hi : mine.list
  if (hi) mine.hi = 0
  else mine.list = 0
  local_irq_enable()
  while (at !== 0) {
    const t = TASKLET.ref(at)
    at = t.next
    if (run_one(t)) continue
    local_irq_disable() // busy on another CPU, or disabled: try again later
    t.next = hi ? mine.hi : mine.list
    if (hi) mine.hi = t.addr
    else mine.list = t.addr
    __raise_softirq_irqoff(hi ? HI_SOFTIRQ : TASKLET_SOFTIRQ)
    local_irq_enable()
  }
}
const tasklet_action_sym = symbol('tasklet_action', () => action(false))
const tasklet_hi_action_sym = symbol('tasklet_hi_action', () => action(true))

/** takeover_tasklets - what a CPU that stands still had queued is run here. @context process */
function takeover_tasklets(cpu: number): void {
  const dead = heads.cpu(cpu)
  const flags = local_irq_save()
  for (const hi of [true, false]) {
    for (let at = hi ? dead.hi : dead.list; at !== 0; ) {
      const t = TASKLET.ref(at)
      at = t.next
      t.next = hi ? mine.hi : mine.list
      if (hi) mine.hi = t.addr
      else mine.list = t.addr
    }
    raise_softirq_irqoff(hi ? HI_SOFTIRQ : TASKLET_SOFTIRQ)
  }
  dead.hi = 0
  dead.list = 0
  local_irq_restore(flags)
}
dead_hooks.push(takeover_tasklets)

/** tasklets_init - @context boot, CPU 0 */
export function tasklets_init(): void {
  open_softirq(TASKLET_SOFTIRQ, tasklet_action_sym)
  open_softirq(HI_SOFTIRQ, tasklet_hi_action_sym)
}
