/**
 * interrupt.ts - from a vector to the handlers of a line: request_irq, do_IRQ, irq_exit, calls across CPUs.
 *
 * Lock charter
 *   irq_desc.lock guards status and the action list of a line, with interrupts off; it is dropped while handlers run.
 *   The same line never runs on two CPUs at once: a second CPU leaves IRQ_PENDING behind and the first looks again.
 *   call_lock serialises smp_call_function; taken with bottom halves off, and never with interrupts off.
 *
 * There is no IRQ_PER_CPU: what belongs to one CPU (timer, calls, reschedule) has vectors of its own and no descriptor.
 */

import { by, bytes, embed, konst, type Layout, layout, own, ptr, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym } from '../abi/symbol.js'
import { fetch_add, load, store } from '../arch/atomic.js'
import { PROVE } from '../arch/boot.js'
import { COST_IRQ } from '../arch/cost.js'
import {
  BUG_ON,
  burn,
  charge_cost,
  cpu_id,
  cpu_relax,
  end_of_interrupt,
  enter_context,
  HARDIRQ,
  irqs_disabled,
  leave_context,
  local_irq_disable,
  local_irq_enable,
  local_softirq_pending,
  panic,
  set_entry,
} from '../arch/cpu.js'
import { line_update, vector_irq } from '../arch/irqchip.js'
import { config, num_cpus, ONLINE, send_vector, VEC_CALL, VEC_DEVICE, VEC_RESCHED, VEC_TIMER } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { EBUSY, EINVAL, ENOMEM } from '../lib/errno.js'
import { NR_IRQS } from '../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../mm/slab.js'
import { spin_lock_bh, spin_unlock_bh } from '../sync/bh.js'
import { add_preempt_count, HARDIRQ_OFFSET, in_interrupt } from '../sync/preempt.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'
import { balance, check_balance } from '../sync/watch.js'
import { __do_softirq } from './softirq.js'

const i32 = RAM.i32

/** Gets the irq and the dev_id of its registration; returns 1 when the device was its own. */
export type irq_handler = (irq: number, dev_id: number) => number

class irqaction extends Struct {
  declare next: irqaction | null
  declare handler: Sym<irq_handler>
  declare flags: number
  declare dev_id: number
}
const ACTION: Layout<irqaction> = layout('irqaction', irqaction, {
  next: ptr(() => ACTION),
  handler: konst(word),
  flags: konst(word),
  dev_id: konst(word),
})
const action_cache = kmem_cache_create('irqaction', ACTION, () => 2 * NR_IRQS)

/** The handler runs with all interrupts off; without it, lower vectors may interrupt it. */
export const SA_INTERRUPT = 0x20000000
/** The line may have several handlers, if all say so. */
export const SA_SHIRQ = 0x04000000

const IRQ_INPROGRESS = 1
const IRQ_DISABLED = 2
const IRQ_PENDING = 4
/** A line is disabled when of so many interrupts all but a thousandth were nobody's. */
const IRQ_SAMPLE = 100_000
const IRQ_NOBODYS = 99_900

class irq_desc extends Struct {
  declare lock: spinlock_t
  declare status: number
  declare action: irqaction | null
  declare irq_count: number
  declare irqs_unhandled: number
}
const DESC: Layout<irq_desc> = layout(
  'irq_desc',
  irq_desc,
  {
    lock: embed(SPINLOCK),
    status: by('lock', word),
    action: by(
      'lock',
      ptr(() => ACTION),
    ),
    irq_count: by('lock', word), // interrupts since the last look
    irqs_unhandled: by('lock', word), // those of them that no handler called its own
  },
  { align: 128 },
)
class irq_table extends Struct {
  declare desc: number
}
const TABLE: Layout<irq_table> = layout('irq_table', irq_table, { desc: bytes(NR_IRQS * 128) })
const irq_table_var = DEFINE_STATIC('irq_desc', TABLE)

/** irq_to_desc - */
function irq_to_desc(irq: number): irq_desc {
  return DESC.ref(irq_table_var.desc + irq * 128)
}

class irq_counts extends Struct {
  declare total: number
  declare timer: number
  declare resched: number
  declare call: number
  declare lines: number
}
const COUNTS: Layout<irq_counts> = layout('irq_counts', irq_counts, {
  total: own(word),
  timer: own(word),
  resched: own(word),
  call: own(word),
  lines: own(bytes(NR_IRQS * 4)),
})
/** /proc/interrupts, a column per CPU. */
export const irq_stats = DEFINE_PER_CPU('irq_stat', COUNTS)
const counts = irq_stats.mine
const LINES = counts.lines >> 2

class irq_cost extends Struct {
  declare ns: number
}
const COST: Layout<irq_cost> = layout('irq_cost', irq_cost, { ns: konst(word) })
const cost = DEFINE_PER_CPU('irq_cost', COST).mine

/** What the timer vector does; the timer wheel fills it in at module load. */
export const irq_hooks = {
  timer_interrupt: (): void => {},
}

// ---- registration ---------------------------------------------------------------------------------------------------

/**
 * request_irq - call `handler` when the line interrupts.
 * @context process, boot @returns 0, -EINVAL, -ENOMEM, -EBUSY: the line is taken by one that does not share
 */
export function request_irq(irq: number, handler: Sym<irq_handler>, irqflags: number, dev_id: number): number {
  if (irq < 0 || irq >= NR_IRQS || handler === 0) return -EINVAL
  if ((irqflags & SA_SHIRQ) !== 0 && dev_id === 0) return -EINVAL // free_irq could not tell whose it is
  const action = kmem_cache_alloc(action_cache)
  if (action === null) return -ENOMEM
  action.handler = handler
  action.flags = irqflags
  action.dev_id = dev_id
  const desc = irq_to_desc(irq)
  const flags = spin_lock_irqsave(desc.lock)
  const first = desc.action
  const refused = first !== null && (first.flags & irqflags & SA_SHIRQ) === 0
  if (!refused) {
    action.next = first
    desc.action = action
    if (first === null) desc.status &= ~IRQ_DISABLED
  }
  spin_unlock_irqrestore(desc.lock, flags)
  if (!refused) {
    line_update(irq)
    return 0
  }
  kmem_cache_free(action_cache, action)
  return -EBUSY
}

/** free_irq - the handler is not running and will not run again when this returns. @context process */
export function free_irq(irq: number, dev_id: number): void {
  const desc = irq_to_desc(irq)
  const flags = spin_lock_irqsave(desc.lock)
  let before: irqaction | null = null
  let a = desc.action
  while (a !== null && a.dev_id !== dev_id) {
    before = a
    a = a.next
  }
  if (a !== null) {
    if (before === null) desc.action = a.next
    else before.next = a.next
  }
  spin_unlock_irqrestore(desc.lock, flags)
  BUG_ON(a === null, 'free_irq of a stranger')
  while ((load(desc.addr + STATUS) & IRQ_INPROGRESS) !== 0) cpu_relax()
  if (a !== null) kmem_cache_free(action_cache, a)
}
const STATUS = DESC.offset('status')

// ---- taking an interrupt --------------------------------------------------------------------------------------------

/**
 * handle_IRQ_event - the handlers of a line, with interrupts as the first of them asked. Interrupts are off before and after.
 * @returns 0: it was nobody's
 */
function handle_IRQ_event(irq: number, first: irqaction): number {
  let handled = 0
  if ((first.flags & SA_INTERRUPT) === 0) local_irq_enable()
  for (let a: irqaction | null = first; a !== null; a = a.next) {
    const before = PROVE ? balance() : 0
    handled |= call(a.handler)(irq, a.dev_id)
    if (PROVE) check_balance(before, `the handler of interrupt ${irq}`)
  }
  local_irq_disable()
  return handled
}

/** note_interrupt - "nobody cared": a line that interrupts for nothing is disabled. @locks desc.lock is held */
function note_interrupt(desc: irq_desc, handled: number): void {
  if (handled === 0) desc.irqs_unhandled++
  if (++desc.irq_count < IRQ_SAMPLE) return
  desc.irq_count = 0
  if (desc.irqs_unhandled > IRQ_NOBODYS) desc.status |= IRQ_DISABLED
  desc.irqs_unhandled = 0
}

/** irq_disabled - did nobody care for the line? */
export function irq_disabled(irq: number): boolean {
  return (irq_to_desc(irq).status & IRQ_DISABLED) !== 0
}

/** __do_IRQ - run the handlers of one line. Interrupts are off. @context hardirq */
function __do_IRQ(irq: number): void {
  counts.total++
  i32[LINES + irq]++
  const desc = irq_to_desc(irq)
  spin_lock(desc.lock)
  desc.status |= IRQ_PENDING
  if ((desc.status & (IRQ_INPROGRESS | IRQ_DISABLED)) !== 0) {
    spin_unlock(desc.lock) // the CPU that is in it looks again
    return
  }
  desc.status |= IRQ_INPROGRESS
  while ((desc.status & IRQ_PENDING) !== 0) {
    desc.status &= ~IRQ_PENDING
    const first = desc.action
    spin_unlock(desc.lock)
    const handled = first === null ? 0 : handle_IRQ_event(irq, first)
    spin_lock(desc.lock)
    note_interrupt(desc, handled)
    if ((desc.status & IRQ_DISABLED) !== 0) break
  }
  desc.status &= ~IRQ_INPROGRESS
  const disabled = (desc.status & IRQ_DISABLED) !== 0
  spin_unlock(desc.lock)
  if (!disabled) line_update(irq) // end of interrupt: a level that is still up interrupts again
}

function device_interrupt(vector: number): void {
  for (let irq = vector_irq(vector, 0, cpu_id); irq >= 0; irq = vector_irq(vector, irq + 1, cpu_id)) __do_IRQ(irq)
}

/** What entry and exit take that are a function call here: ns of the configuration, or cycles of the profile. */
function irq_overhead(): void {
  charge_cost(COST_IRQ)
  if (cost.ns > 0) burn(cost.ns)
}

/** do_IRQ - how hardware enters the kernel. Interrupts are off. @context any */
function do_IRQ(vector: number): undefined {
  const old = enter_context(HARDIRQ, vector)
  add_preempt_count(HARDIRQ_OFFSET)
  if (vector === VEC_TIMER) {
    counts.total++
    counts.timer++
    irq_overhead()
    irq_hooks.timer_interrupt()
  } else if (vector >= VEC_DEVICE) {
    irq_overhead()
    device_interrupt(vector)
  } else if (vector === VEC_CALL) {
    counts.call++
    smp_call_function_interrupt()
  } else if (vector === VEC_RESCHED) counts.resched++
  else panic(`BUG: unknown vector ${vector}`)
  irq_exit()
  leave_context(old)
}

/** irq_exit - the last hardirq runs what it left to do. */
function irq_exit(): void {
  add_preempt_count(-HARDIRQ_OFFSET)
  if (in_interrupt()) return
  end_of_interrupt()
  if (local_softirq_pending() !== 0) __do_softirq()
}

// ---- calls across CPUs ----------------------------------------------------------------------------------------------

class call_data extends Struct {
  declare lock: spinlock_t
  declare func: Sym<(arg: number) => void>
  declare arg: number
  declare finished: number
}
const CALL: Layout<call_data> = layout('call_data', call_data, {
  lock: embed(SPINLOCK),
  func: by('lock', word),
  arg: by('lock', word),
  finished: { kind: 'word', size: 4, align: 4, guard: 'atomic' },
})
const call_data_var = DEFINE_STATIC('call_data', CALL)
const FINISHED = call_data_var.addr + CALL.offset('finished')

function smp_call_function_interrupt(): void {
  call(call_data_var.func)(call_data_var.arg)
  fetch_add(FINISHED, 1)
}

/** smp_call_function - run a function on all other CPUs, in interrupt context, and wait. @context process, interrupts on */
export function smp_call_function(func: Sym<(arg: number) => void>, arg: number): void {
  BUG_ON(irqs_disabled(), 'smp_call_function with interrupts off')
  spin_lock_bh(call_data_var.lock)
  const mask = load(ONLINE) & ~(1 << cpu_id)
  let others = 0
  for (let cpu = 0; cpu < num_cpus(); cpu++) if ((mask & (1 << cpu)) !== 0) others++
  call_data_var.func = func
  call_data_var.arg = arg
  store(FINISHED, 0)
  for (let cpu = 0; cpu < num_cpus(); cpu++) if ((mask & (1 << cpu)) !== 0) send_vector(cpu, VEC_CALL)
  while (load(FINISHED) < others) cpu_relax()
  spin_unlock_bh(call_data_var.lock)
}

/** smp_call_barrier - no call that was begun before this goes on when it returns. @context process, interrupts on */
export function smp_call_barrier(): void {
  spin_lock_bh(call_data_var.lock)
  spin_unlock_bh(call_data_var.lock)
}

/** on_each_cpu - and on this one. */
export function on_each_cpu(func: Sym<(arg: number) => void>, arg: number): void {
  smp_call_function(func, arg)
  local_irq_disable()
  call(func)(arg)
  local_irq_enable()
}

/** cpus_online - mask. */
export function cpus_online(): number {
  return load(ONLINE)
}

/** irq_init - @context boot, each CPU */
export function irq_init(): void {
  cost.ns = config('irq_cost_ns')
  if (cpu_id > 0) return
  for (let irq = 0; irq < NR_IRQS; irq++) spin_lock_init(irq_to_desc(irq).lock)
  spin_lock_init(call_data_var.lock)
}

set_entry({ interrupt: do_IRQ })
