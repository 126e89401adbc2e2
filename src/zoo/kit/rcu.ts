/** rcu.ts - what the scenarios about RCU share: a filter behind a pointer, and CPUs that pass quiescent states. */
import { embed, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { symbol } from '../../abi/symbol.js'
import { do_softirq } from '../../irq/softirq.js'
import { tasklets_init } from '../../irq/tasklet.js'
import { type kmem_cache, kmem_cache_alloc, kmem_cache_create, kmem_cache_free, objects_out } from '../../mm/slab.js'
import { RCU_HEAD, rcu_check_callbacks, type rcu_head, rcu_init } from '../../rcu/rcupdate.js'
import { add_preempt_count, HARDIRQ_OFFSET } from '../../sync/preempt.js'

export const VALUE = 42

export class filter extends Struct {
  declare first: number
  declare second: number
  declare rcu: rcu_head
}
export const FILTER: Layout<filter> = layout('filter', filter, { first: word, second: word, rcu: embed(RCU_HEAD) })
export const filters = kmem_cache_create('filter', FILTER, () => 4)

class pointer extends Struct {
  declare filter: filter | null
}
export const POINTER: Layout<pointer> = layout('pointer', pointer, { filter: ptr(() => FILTER) })

function filter_free(head: number): void {
  kmem_cache_free(filters, FILTER.container_of('rcu', head))
}
export const filter_free_sym = symbol('zoo_filter_free', filter_free)

/** rcu_start - RCU as at boot, and a filter behind `where`. */
export function rcu_start(ncpus: number, where: pointer): void {
  tasklets_init()
  rcu_init(ncpus)
  const f = kmem_cache_alloc(filters)!
  f.first = VALUE
  f.second = VALUE
  where.filter = f
}

/** filters_left - how a run ended: how many filters are not freed yet. */
export const filters_left = (): string => `${objects_out(filters as unknown as kmem_cache<Struct>).length} left`

/** quiescent - a few ticks in user mode: grace periods begin, this CPU passes them, and what is due is called back. */
export function quiescent(ticks = 4): void {
  for (let k = 0; k < ticks; k++) {
    rcu_check_callbacks(true)
    do_softirq()
  }
}

/** interrupted - a few ticks that come out of the kernel: this CPU passes for `rcu_bh`, but not for `rcu`. */
export function interrupted(ticks = 4): void {
  for (let k = 0; k < ticks; k++) {
    add_preempt_count(HARDIRQ_OFFSET)
    rcu_check_callbacks(false)
    add_preempt_count(-HARDIRQ_OFFSET)
    do_softirq()
  }
}
