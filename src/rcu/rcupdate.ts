/**
 * rcupdate.ts - read-copy update as in 2.6.11: two flavours, a grace period at a time, callbacks from a tasklet.
 *
 * Lock charter
 *   state.lock guards a flavour's grace-period machine (cur, completed, next_pending, cpumask); taken in softirq context,
 *   or with interrupts off. rcu_data belongs to its CPU: nxtlist is appended to with interrupts off, the rest is touched
 *   by that CPU's tasklet and tick only. Callbacks run without any lock.
 *
 * A CPU is quiescent for `rcu` when it switches context or is seen by the tick in user mode or idle, and for `rcu_bh` also
 * at the end of every softirq handler and when the tick does not interrupt a softirq.
 */

import { atomic, by, embed, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { load, READ_ONCE, store } from '../arch/atomic.js'
import { PROVE } from '../arch/boot.js'
import { cost } from '../arch/cost.js'
import {
  CPU_PREEMPT,
  cpu_area,
  cpu_id,
  local_irq_disable,
  local_irq_enable,
  local_irq_restore,
  local_irq_save,
  tick,
} from '../arch/cpu.js'
import { ONLINE } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { dead_hooks } from '../irq/hotplug.js'
import { softirq_hooks } from '../irq/softirq.js'
import { TASKLET, tasklet_init, tasklet_schedule, type tasklet_struct } from '../irq/tasklet.js'
import { msleep, tick_hooks, user_mode } from '../irq/timer.js'
import { MAX_TASKS } from '../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, with_hoards } from '../mm/slab.js'
import { COMPLETION, complete, type completion, init_completion, wait_for_completion } from '../sched/completion.js'
import { current_or_null, sched_hooks } from '../sched/sched.js'
import { local_bh_disable, local_bh_enable, spin_lock_bh, spin_unlock_bh } from '../sync/bh.js'
import { HARDIRQ_MASK, HARDIRQ_OFFSET, preempt_count, SOFTIRQ_MASK } from '../sync/preempt.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../sync/spinlock.js'
import {
  FLAVOUR_BH,
  FLAVOUR_RCU,
  prove_begins,
  prove_enter,
  prove_fetch,
  prove_flavours,
  prove_invoke,
  prove_leave,
  prove_reset,
  prove_stalls,
} from './prove.js'
import { RCU_HEAD, type rcu_head } from './types.js'

const COST_CALLBACK = cost('rcu_do_batch')

export { RCU_HEAD, type rcu_head } from './types.js'

const i32 = RAM.i32
const AREA = cpu_area(Math.max(cpu_id, 0))
const PREEMPT = (AREA + CPU_PREEMPT) >> 2
const ME = 1 << Math.max(cpu_id, 0)

/** Callbacks that one run of the tasklet calls at most. */
export const maxbatch = 10

// ---- the read side --------------------------------------------------------------------------------------------------

/** rcu_read_lock - what is reached from here is not freed before rcu_read_unlock. No sleeping in between. @context any */
export function rcu_read_lock(): void {
  i32[PREEMPT]++
  if (PROVE) prove_enter()
}
export function rcu_read_unlock(): void {
  if (PROVE) prove_leave()
  i32[PREEMPT]--
}
/** rcu_read_lock_bh - against what is freed by call_rcu_bh. @context process, softirq */
export function rcu_read_lock_bh(): void {
  local_bh_disable()
  if (PROVE) prove_enter()
}
export function rcu_read_unlock_bh(): void {
  if (PROVE) prove_leave()
  local_bh_enable()
}
/** rcu_dereference - fetch a pointer that is published by rcu_assign_pointer: a plain load is enough here as on i386. */
export function rcu_dereference(addr: number): number {
  const pointer = READ_ONCE(addr)
  if (PROVE) prove_fetch(pointer, addr)
  return pointer
}
/** rcu_dereference_protected - fetch a pointer that cannot change meanwhile: its updaters are kept out. No reader is needed. */
export function rcu_dereference_protected(addr: number): number {
  return READ_ONCE(addr)
}
/** rcu_assign_pointer - publish: everything written before is seen by whoever sees the pointer. */
export function rcu_assign_pointer(addr: number, value: number): void {
  store(addr, value)
}

// ---- the machine ----------------------------------------------------------------------------------------------------

class rcu_ctrlblk extends Struct {
  declare cur: number
  declare completed: number
  declare next_pending: number
  declare lock: spinlock_t
  declare cpumask: number
}
const CTRL: Layout<rcu_ctrlblk> = layout('rcu_ctrlblk', rcu_ctrlblk, {
  // Written under the lock, read by every CPU's tick without it: to see them late does no harm.
  cur: atomic(word), // number of the grace period that runs, or ran last
  completed: atomic(word), // number of the last one that ended
  next_pending: word, // another one is wanted after it
  lock: { ...embed(SPINLOCK), align: 128 },
  cpumask: by('lock', word), // CPUs that have yet to pass a quiescent state
})

class rcu_data extends Struct {
  declare quiescbatch: number
  declare passed_quiesc: number
  declare qs_pending: number
  declare batch: number
  declare nxtlist: number
  declare nxttail: number
  declare curlist: number
  declare curtail: number
  declare donelist: number
  declare donetail: number
}
/** Lists hold rcu_heads by address; a tail is the address of the word to be written next. */
const DATA: Layout<rcu_data> = layout('rcu_data', rcu_data, {
  quiescbatch: own(word), // grace period it knows of
  passed_quiesc: own(word),
  qs_pending: own(word), // that one still waits for this CPU
  batch: own(word), // grace period that curlist waits for
  nxtlist: own(word),
  nxttail: own(word),
  curlist: own(word),
  curtail: own(word),
  donelist: own(word),
  donetail: own(word),
})
const NXT = DATA.offset('nxtlist')
const CUR = DATA.offset('curlist')
const DONE = DATA.offset('donelist')

const ctrl = DEFINE_STATIC('rcu_ctrlblk', CTRL)
const ctrl_bh = DEFINE_STATIC('rcu_bh_ctrlblk', CTRL)
const datas = DEFINE_PER_CPU('rcu_data', DATA)
const datas_bh = DEFINE_PER_CPU('rcu_bh_data', DATA)
const data = datas.mine
const data_bh = datas_bh.mine
const tasklets = DEFINE_PER_CPU('rcu_tasklet', TASKLET)
const tasklet: tasklet_struct = tasklets.mine

/** rcu_batches_completed - number of the last grace period that ended, for who counts them. @context any */
export function rcu_batches_completed(): number {
  return load(ctrl.addr + COMPLETED)
}
/** rcu_batches_completed_bh - of `rcu_bh`. @context any */
export function rcu_batches_completed_bh(): number {
  return load(ctrl_bh.addr + COMPLETED)
}

function before(a: number, b: number): boolean {
  return ((a - b) | 0) < 0
}

function enqueue(rdp: rcu_data, head: rcu_head, func: Sym<(head: number) => void>): void {
  head.func = func
  head.next = 0
  const flags = local_irq_save()
  i32[rdp.nxttail >> 2] = head.addr
  rdp.nxttail = head.addr // `next` is its first word
  local_irq_restore(flags)
}

/** call_rcu - call `func` with the head's address when all readers of now have left. @context any */
export function call_rcu(head: rcu_head, func: Sym<(head: number) => void>): void {
  enqueue(data, head, func)
}
/** call_rcu_bh - the same for readers under rcu_read_lock_bh or in softirqs. @context any */
export function call_rcu_bh(head: rcu_head, func: Sym<(head: number) => void>): void {
  enqueue(data_bh, head, func)
}

function flavour_of(rcp: rcu_ctrlblk): number {
  return rcp === ctrl ? FLAVOUR_RCU : FLAVOUR_BH
}

/** rcu_start_batch - @locks rcp.lock is held */
function rcu_start_batch(rcp: rcu_ctrlblk, next_pending: boolean): void {
  if (next_pending) rcp.next_pending = 1
  if (rcp.next_pending === 0 || rcp.completed !== rcp.cur) return
  rcp.cpumask = load(ONLINE)
  rcp.next_pending = 0
  store(rcp.addr, (rcp.cur + 1) | 0)
  if (PROVE) prove_begins(flavour_of(rcp))
}

/** cpu_quiet - this CPU has passed; the last one ends the grace period. @locks rcp.lock is held */
function cpu_quiet(rcp: rcu_ctrlblk, mask: number): void {
  rcp.cpumask &= ~mask
  if (rcp.cpumask !== 0) return
  store(rcp.addr + COMPLETED, rcp.cur)
  rcu_start_batch(rcp, false)
}
const COMPLETED = CTRL.offset('completed')

function rcu_check_quiescent_state(rcp: rcu_ctrlblk, rdp: rcu_data): void {
  if (rdp.quiescbatch !== rcp.cur) {
    rdp.qs_pending = 1 // a new grace period: what was passed before does not count
    rdp.passed_quiesc = 0
    rdp.quiescbatch = rcp.cur
    return
  }
  if (rdp.qs_pending === 0 || rdp.passed_quiesc === 0) return
  rdp.qs_pending = 0
  spin_lock(rcp.lock)
  if (rdp.quiescbatch === rcp.cur) cpu_quiet(rcp, ME) // else it ended meanwhile
  spin_unlock(rcp.lock)
}

/** Append a list to another: both given by the offset of their head word. */
function splice(rdp: rcu_data, from: number, to: number): void {
  const f = (rdp.addr + from) >> 2
  const t = (rdp.addr + to) >> 2
  i32[i32[t + 1] >> 2] = i32[f]
  i32[t + 1] = i32[f + 1]
  i32[f] = 0
  i32[f + 1] = rdp.addr + from
}

function rcu_do_batch(rcp: rcu_ctrlblk, rdp: rcu_data): void {
  let count = 0
  if (PROVE) prove_invoke(flavour_of(rcp))
  while (rdp.donelist !== 0 && count < maxbatch) {
    const head = RCU_HEAD.ref(rdp.donelist)
    rdp.donelist = head.next
    if (head.next === 0) rdp.donetail = rdp.addr + DONE
    tick(COST_CALLBACK)
    call(head.func)(head.addr)
    count++
  }
  if (PROVE) prove_invoke(0)
  if (rdp.donelist !== 0) tasklet_schedule(tasklet)
}

function __rcu_process_callbacks(rcp: rcu_ctrlblk, rdp: rcu_data): void {
  if (rdp.curlist !== 0 && !before(load(rcp.addr + COMPLETED), rdp.batch)) splice(rdp, CUR, DONE)
  local_irq_disable()
  if (rdp.nxtlist !== 0 && rdp.curlist === 0) {
    splice(rdp, NXT, CUR)
    local_irq_enable()
    spin_lock(rcp.lock)
    rdp.batch = (rcp.cur + 1) | 0 // not the one that runs: its start may be older than these callbacks
    if (rcp.next_pending === 0) rcu_start_batch(rcp, true)
    spin_unlock(rcp.lock)
  } else local_irq_enable()
  rcu_check_quiescent_state(rcp, rdp)
  if (rdp.donelist !== 0) rcu_do_batch(rcp, rdp)
}

function rcu_process_callbacks(): void {
  __rcu_process_callbacks(ctrl, data)
  __rcu_process_callbacks(ctrl_bh, data_bh)
}
const rcu_process_callbacks_sym = symbol('rcu_process_callbacks', rcu_process_callbacks)

function __rcu_pending(rcp: rcu_ctrlblk, rdp: rcu_data): boolean {
  return (
    (rdp.curlist !== 0 && !before(rcp.completed, rdp.batch)) ||
    (rdp.curlist === 0 && rdp.nxtlist !== 0) ||
    rdp.donelist !== 0 ||
    rdp.quiescbatch !== rcp.cur ||
    rdp.qs_pending !== 0
  )
}

/** rcu_pending - is there anything for this CPU to do? */
export function rcu_pending(): boolean {
  return __rcu_pending(ctrl, data) || __rcu_pending(ctrl_bh, data_bh)
}

/** rcu_qsctr_inc - this CPU is in no reader of `rcu`. */
export function rcu_qsctr_inc(): void {
  data.passed_quiesc = 1
}
/** rcu_bh_qsctr_inc - this CPU is in no reader of `rcu_bh`. */
export function rcu_bh_qsctr_inc(): void {
  data_bh.passed_quiesc = 1
}

/** rcu_check_callbacks - the tick's part. `user`: the tick came out of user mode. @context hardirq */
export function rcu_check_callbacks(user: boolean): void {
  if (PROVE) prove_stalls()
  const count = preempt_count()
  const in_softirq = (count & SOFTIRQ_MASK) !== 0
  const idle =
    current_or_null() === null && !in_softirq && (count & HARDIRQ_MASK) <= HARDIRQ_OFFSET && (count & 0xff) === 0
  if (user || idle) {
    rcu_qsctr_inc()
    rcu_bh_qsctr_inc()
  } else if (!in_softirq) rcu_bh_qsctr_inc()
  tasklet_schedule(tasklet)
}

function rcu_tick(): void {
  if (rcu_pending()) rcu_check_callbacks(user_mode())
}

// ---- waiting for a grace period -------------------------------------------------------------------------------------

class rcu_synchronize extends Struct {
  declare head: rcu_head
  declare done: completion
}
const SYNC: Layout<rcu_synchronize> = layout('rcu_synchronize', rcu_synchronize, {
  head: embed(RCU_HEAD),
  done: embed(COMPLETION),
})
const sync_cache = kmem_cache_create('rcu_synchronize', SYNC, () => with_hoards(MAX_TASKS))

function wakeme_after_rcu(head: number): void {
  complete(SYNC.container_of('head', head).done)
}
const wakeme_after_rcu_sym = symbol('wakeme_after_rcu', wakeme_after_rcu)

/** synchronize_kernel - returns when every reader of now has left. @context process */
export function* synchronize_kernel(): Generator<void, void, void> {
  let rcu = kmem_cache_alloc(sync_cache)
  for (; rcu === null; rcu = kmem_cache_alloc(sync_cache)) yield* msleep(1)
  init_completion(rcu.done)
  call_rcu(rcu.head, wakeme_after_rcu_sym)
  yield* wait_for_completion(rcu.done)
  kmem_cache_free(sync_cache, rcu)
}

/** rcu_idle - nothing waits for a grace period on this CPU, for the leak audit. */
export function rcu_idle(cpu: number): boolean {
  return [datas.cpu(cpu), datas_bh.cpu(cpu)].every(d => d.nxtlist === 0 && d.curlist === 0 && d.donelist === 0)
}

/** rcu_barrier_halted - on a machine at rest there are no readers: run every callback now. @context audit */
export function rcu_drain_halted(ncpus: number): void {
  for (let again = true; again; ) {
    again = false
    for (let cpu = 0; cpu < ncpus; cpu++) {
      for (const d of [datas.cpu(cpu), datas_bh.cpu(cpu)]) {
        for (const list of [DONE, CUR, NXT]) {
          const w = (d.addr + list) >> 2
          let at = i32[w]
          i32[w] = 0
          i32[w + 1] = d.addr + list
          while (at !== 0) {
            const head = RCU_HEAD.ref(at)
            at = head.next
            call(head.func)(head.addr)
            again = true
          }
        }
      }
    }
  }
}

/** rcu_init - @context boot, CPU 0 for all CPUs */
export function rcu_init(ncpus: number): void {
  if (PROVE) prove_reset(ncpus)
  for (const rcp of [ctrl, ctrl_bh]) {
    spin_lock_init(rcp.lock)
    rcp.cur = -300
    rcp.completed = -300
    rcp.next_pending = 0
    rcp.cpumask = 0
  }
  for (let cpu = 0; cpu < ncpus; cpu++) {
    for (const d of [datas.cpu(cpu), datas_bh.cpu(cpu)]) {
      d.quiescbatch = -300
      d.qs_pending = 0
      d.passed_quiesc = 0
      d.nxtlist = 0
      d.nxttail = d.addr + NXT
      d.curlist = 0
      d.curtail = d.addr + CUR
      d.donelist = 0
      d.donetail = d.addr + DONE
    }
    tasklet_init(tasklets.cpu(cpu), rcu_process_callbacks_sym, 0)
  }
}

/** rcu_offline_cpu - nobody waits for a CPU that stands still, and its callbacks are ours. @context process */
function rcu_offline_cpu(cpu: number): void {
  for (const [rcp, from, to] of [
    [ctrl, datas.cpu(cpu), data],
    [ctrl_bh, datas_bh.cpu(cpu), data_bh],
  ] as const) {
    spin_lock_bh(rcp.lock)
    if (rcp.cur !== rcp.completed) cpu_quiet(rcp, 1 << cpu)
    spin_unlock_bh(rcp.lock)
    const flags = local_irq_save()
    for (const list of [DONE, CUR, NXT]) {
      const w = (from.addr + list) >> 2
      if (i32[w] === 0) continue
      i32[to.nxttail >> 2] = i32[w]
      to.nxttail = i32[w + 1]
      i32[w] = 0
      i32[w + 1] = from.addr + list
    }
    from.qs_pending = 0
    from.quiescbatch = rcp.completed
    local_irq_restore(flags)
  }
}
dead_hooks.push(rcu_offline_cpu)

prove_flavours({ rcu: ctrl.addr, bh: ctrl_bh.addr, completed: COMPLETED, cpumask: CTRL.offset('cpumask') })
tick_hooks.push(rcu_tick)
sched_hooks.context_switch = rcu_qsctr_inc
softirq_hooks.handler_done = rcu_bh_qsctr_inc
