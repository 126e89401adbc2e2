/**
 * xfrm_tunnel.ts - states of packets that come through a tunnel as they are: IPComp leaves those alone that it cannot make
 * smaller, and the other end has to take them (net/ipv4/ipcomp.c and net/xfrm/xfrm_state.c of 2.6.11). One serves all states
 * between two addresses, and goes with the last of them.
 *
 * Locks: uses are counted under xfrm_state_lock, and so is who comes while the last one goes. 2.6.11 counts without it: a state
 * that is added meanwhile may be left with a tunnel state that is gone, or two that go at once leave theirs behind.
 */
import { symbol } from '../../abi/symbol.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { IPPROTO_IPIP } from '../wire/ipv4.js'
import { STATE, XFRM_STATE_VALID, type xfrm_state } from './types.js'
import { xfrm_gc_init, xfrm_gc_take } from './xfrm_gc.js'
import {
  __xfrm_state_delete,
  __xfrm_state_insert,
  __xfrm_state_lookup,
  xfrm_state_dropped,
  xfrm_state_free,
  xfrm_state_hold,
  xfrm_state_lock,
  xfrm_state_put,
} from './xfrm_state.js'

/** xfrm_tunnel_attach - x uses the tunnel state of its addresses: the one there is, else `fresh`. @context process @returns false: neither */
export function xfrm_tunnel_attach(x: xfrm_state, fresh: xfrm_state | null): boolean {
  spin_lock_bh(xfrm_state_lock)
  const known = __xfrm_state_lookup(x.daddr, x.saddr, IPPROTO_IPIP)
  const t = known ?? fresh
  if (t !== null) {
    if (known === null) {
      t.tunnel_users = 1
      t.state = XFRM_STATE_VALID
      __xfrm_state_insert(t)
    }
    t.tunnel_users++
    xfrm_state_hold(t)
    x.tunnel = t.addr
  }
  spin_unlock_bh(xfrm_state_lock)
  return t !== null
}

/** xfrm_state_delete_tunnel - the one that x used, with its last user. @context process @locks takes xfrm_state_lock */
function xfrm_state_delete_tunnel(x: xfrm_state): void {
  const t = STATE.ref(x.tunnel)
  spin_lock_bh(xfrm_state_lock)
  t.tunnel_users--
  const last = t.tunnel_users === 1 && __xfrm_state_delete(t) === 0
  spin_unlock_bh(xfrm_state_lock)
  if (last) xfrm_state_dropped(t)
  xfrm_state_put(t)
}

/** xfrm_gc_now - free those that wait for it. @context process, or a halted machine */
export function xfrm_gc_now(): void {
  for (let x = xfrm_gc_take(); x !== null; x = xfrm_gc_take()) {
    xfrm_state_delete_tunnel(x)
    xfrm_state_free(x)
  }
}
const xfrm_state_gc_task_sym = symbol('xfrm_state_gc_task', function* () {
  xfrm_gc_now()
})

/** xfrm_tunnel_init - @context boot, CPU 0 */
export function xfrm_tunnel_init(): void {
  xfrm_gc_init(xfrm_state_gc_task_sym)
}
