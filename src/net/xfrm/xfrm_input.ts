/** xfrm_input.ts - the way that a packet has come (net/xfrm/xfrm_input.c). A sec_path belongs to all who share it; who adds to it has his own. */
import { symbol } from '../../abi/symbol.js'
import { load } from '../../arch/atomic.js'
import { memcpy, RAM } from '../../arch/ram.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { nf_conntrack_put } from '../core/skbuff.js'
import type { sk_buff } from '../core/types.js'
import { SEC_PATH, STATE, type sec_path, XFRM_MAX_DEPTH, type xfrm_state } from './types.js'
import { xfrm_state_hold, xfrm_state_put } from './xfrm_state.js'

const i32 = RAM.i32

function __secpath_destroy(at: number): void {
  const sp = SEC_PATH.ref(at)
  for (let k = 0; k < sp.len; k++) xfrm_state_put(STATE.ref(i32[(sp.x >> 2) + k]!))
  kfree(at)
}
const secpath_destroy_sym = symbol('__secpath_destroy', __secpath_destroy)

/** secpath_dup - a copy that nobody shares, with references of its own; of nothing: an empty one. @returns null: no memory */
function secpath_dup(src: number): sec_path | null {
  const at = kmalloc(SEC_PATH.size)
  if (at === 0) return null
  const sp = SEC_PATH.ref(at)
  if (src !== 0) memcpy(at, src, SEC_PATH.size)
  sp.refcnt = 1
  sp.destroy = secpath_destroy_sym
  for (let k = 0; k < sp.len; k++) xfrm_state_hold(STATE.ref(i32[(sp.x >> 2) + k]!))
  return sp
}

/** secpath_add - the packet has come through these states, too. @consumes the references of the states, if it returns true */
export function secpath_add(skb: sk_buff, states: readonly xfrm_state[]): boolean {
  const have = skb.sp === 0 ? 0 : SEC_PATH.ref(skb.sp).len
  if (have + states.length > XFRM_MAX_DEPTH) return false
  if (skb.sp === 0 || load(skb.sp) !== 1) {
    const own = secpath_dup(skb.sp)
    if (own === null) return false
    nf_conntrack_put(skb.sp)
    skb.sp = own.addr
  }
  const sp = SEC_PATH.ref(skb.sp)
  for (const x of states) i32[(sp.x >> 2) + sp.len++] = x.addr
  return true
}
