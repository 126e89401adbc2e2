/** #36: a socket's cached route is read without a lock, and held when its last reference has gone. */
import { type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { load, store, xchg } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import { dst_free, dst_hold, dst_init, type dst_ops, dst_release } from '../../net/core/dst.js'
import { DST, type dst_entry } from '../../net/core/types.js'
import { ATOMIC, atomic_inc_not_zero } from '../../sync/atomic_t.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class sock extends Struct {
  declare dst_cache: dst_entry | null
  declare destroyed: number
}
const SOCK: Layout<sock> = layout('sock', sock, { dst_cache: ptr(() => DST), destroyed: word })
const sk = DEFINE_STATIC('sock', SOCK)
const DST_CACHE = sk.addr + SOCK.offset('dst_cache')
const DESTROYED = sk.addr + SOCK.offset('destroyed')
const route = DEFINE_STATIC('route', DST)
const refcnt = ATOMIC.ref(route.addr + DST.offset('refcnt'))

/** The memory stays what it is, as that of a slab by RCU: only the route in it has gone. */
const ops: dst_ops = { destroy: () => store(DESTROYED, 1), link_failure: () => {} }
const ops_sym = symbol('zoo_dst_ops', ops)

export function setup(twin: Twin) {
  machine_init(2)
  dst_init()
  route.refcnt = 1
  route.ops = ops_sym
  sk.dst_cache = route
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

/** sk_dst_get - @returns referenced, or null */
function sk_dst_get(fixed: boolean): dst_entry | null {
  const dst = DST.at(load(DST_CACHE))
  if (dst === null) return null
  if (fixed) return atomic_inc_not_zero(refcnt) ? dst : null
  dst_hold(dst)
  return dst
}

export const actors = {
  'CPU 0'({ fixed }: Shared) {
    const dst = sk_dst_get(fixed)
    if (dst === null) return
    BUG_ON(load(DESTROYED) === 1, 'a route is used that was destroyed')
    dst_release(dst)
  },
  /** sk_dst_reset */
  'CPU 1'() {
    const dst = DST.at(xchg(DST_CACHE, 0))!
    dst_release(dst)
    dst_free(dst)
  },
}
