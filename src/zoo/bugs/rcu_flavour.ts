/** #58: readers of one flavour of RCU, an updater that waits for those of the other. */
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { BUG_ON } from '../../arch/cpu.js'
import {
  call_rcu,
  call_rcu_bh,
  rcu_assign_pointer,
  rcu_dereference,
  rcu_dereference_protected,
  rcu_read_lock,
  rcu_read_unlock,
} from '../../rcu/rcupdate.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import { FILTER, filter_free_sym, filters_left, interrupted, POINTER, quiescent, rcu_start, VALUE } from '../kit/rcu.js'
import type { Twin } from '../kit/words.js'

const cache = DEFINE_STATIC('route_cache', POINTER)

export function setup(twin: Twin) {
  machine_init(2, { slab_poison: 1 })
  rcu_start(2, cache)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr
export const outcome = filters_left

export const actors = {
  'CPU 0'() {
    rcu_read_lock()
    const route = FILTER.at(rcu_dereference(cache.addr))
    interrupted()
    if (route !== null) BUG_ON(route.first !== VALUE, 'a route is read that was freed')
    rcu_read_unlock()
    quiescent()
  },
  'CPU 1'({ fixed }: Shared) {
    const old = FILTER.ref(rcu_dereference_protected(cache.addr))
    rcu_assign_pointer(cache.addr, 0)
    if (fixed) call_rcu(old.rcu, filter_free_sym)
    else call_rcu_bh(old.rcu, filter_free_sym)
    quiescent()
  },
}
