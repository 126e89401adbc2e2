/** #51: a filter that readers see is changed where it lies, not copied and replaced. */
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { BUG_ON } from '../../arch/cpu.js'
import { kmem_cache_alloc } from '../../mm/slab.js'
import {
  call_rcu,
  rcu_assign_pointer,
  rcu_dereference,
  rcu_dereference_protected,
  rcu_read_lock,
  rcu_read_unlock,
} from '../../rcu/rcupdate.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import { FILTER, filter_free_sym, filters, filters_left, POINTER, quiescent, rcu_start } from '../kit/rcu.js'
import type { Twin } from '../kit/words.js'

const list = DEFINE_STATIC('filter_list', POINTER)

export function setup(twin: Twin) {
  machine_init(2, { slab_poison: 1 })
  rcu_start(2, list)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr
export const outcome = filters_left

export const actors = {
  'CPU 0'() {
    rcu_read_lock()
    const f = FILTER.ref(rcu_dereference(list.addr))
    BUG_ON(f.first !== f.second, 'half of a filter is old and half is new')
    rcu_read_unlock()
    quiescent()
  },
  'CPU 1'({ fixed }: Shared) {
    const old = FILTER.ref(rcu_dereference_protected(list.addr))
    const f = fixed ? kmem_cache_alloc(filters)! : old
    f.first = 7
    f.second = 7
    rcu_assign_pointer(list.addr, f.addr)
    if (fixed) call_rcu(old.rcu, filter_free_sym)
    quiescent()
  },
}
