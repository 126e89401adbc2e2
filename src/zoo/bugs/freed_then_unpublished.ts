/** #50: the free is queued first and the pointer taken away second: a reader that comes in between is waited for by nobody. */
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { BUG_ON } from '../../arch/cpu.js'
import {
  call_rcu,
  rcu_assign_pointer,
  rcu_dereference,
  rcu_dereference_protected,
  rcu_read_lock,
  rcu_read_unlock,
} from '../../rcu/rcupdate.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import { FILTER, filter_free_sym, filters_left, POINTER, quiescent, rcu_start, VALUE } from '../kit/rcu.js'
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
    quiescent(2)
    rcu_read_lock()
    const f = FILTER.at(rcu_dereference(list.addr))
    if (f !== null) BUG_ON(f.first !== VALUE, 'a filter is read that was freed')
    rcu_read_unlock()
    quiescent(2)
  },
  'CPU 1'({ fixed }: Shared) {
    const old = FILTER.ref(rcu_dereference_protected(list.addr))
    if (fixed) rcu_assign_pointer(list.addr, 0)
    call_rcu(old.rcu, filter_free_sym)
    quiescent(2) // the process that deletes it is preempted here
    if (!fixed) rcu_assign_pointer(list.addr, 0)
    quiescent(2)
  },
}
