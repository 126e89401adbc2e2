/** xfrm_tmpl.ts - what policies ask for, and whether a packet has come so (net/xfrm/xfrm_policy.c of 2.6.11). No locks: neither changes. */
import { RAM } from '../../arch/ram.js'
import type { sk_buff } from '../core/types.js'
import {
  SEC_PATH,
  STATE,
  TMPL,
  XFRM_MODE_TUNNEL,
  XFRM_POLICY_ALLOW,
  type xfrm_policy,
  type xfrm_state,
  type xfrm_tmpl,
} from './types.js'
import { xfrm_state_kern } from './xfrm_state.js'

const i32 = RAM.i32

/** xfrm_tmpl_of - number `k` of a policy. */
export function xfrm_tmpl_of(policy: xfrm_policy, k: number): xfrm_tmpl {
  return TMPL.ref(policy.vec + k * TMPL.size)
}

const NO_PATH: readonly xfrm_state[] = []
/** sec_path_states - those that a packet has come through, the first that was taken off first. */
export function sec_path_states(skb: sk_buff): readonly xfrm_state[] {
  if (skb.sp === 0) return NO_PATH
  const sp = SEC_PATH.ref(skb.sp)
  return Array.from({ length: sp.len }, (_, k) => STATE.ref(i32[(sp.x >> 2) + k]!))
}

/** Another tunnel than the template's. */
function xfrm_state_addr_cmp(t: xfrm_tmpl, x: xfrm_state): boolean {
  return (t.daddr !== 0 && t.daddr !== x.daddr) || (t.saddr !== 0 && t.saddr !== x.saddr)
}
function xfrm_state_ok(t: xfrm_tmpl, x: xfrm_state): boolean {
  // What comes through a tunnel as it is serves for whatever need not be there.
  if (xfrm_state_kern(x)) return t.optional !== 0 && !xfrm_state_addr_cmp(t, x)
  return (
    x.proto === t.proto &&
    (x.spi === t.spi || t.spi === 0) &&
    (x.reqid === t.reqid || t.reqid === 0) &&
    x.mode === t.mode &&
    (x.aalg === 0 || (t.aalgos & (1 << x.aalg)) !== 0) &&
    !(x.mode === XFRM_MODE_TUNNEL && xfrm_state_addr_cmp(t, x))
  )
}
/** xfrm_policy_ok - the first state from `start` on that a template is for. @returns the place behind it; -1: there is none */
function xfrm_policy_ok(t: xfrm_tmpl, path: readonly xfrm_state[], start: number): number {
  let answer = -1
  if (t.optional !== 0) {
    if (t.mode !== XFRM_MODE_TUNNEL) return start
    answer = start
  }
  for (let k = start; k < path.length; k++) {
    if (xfrm_state_ok(t, path[k]!)) return k + 1
    if (path[k]!.mode === XFRM_MODE_TUNNEL) break
  }
  return answer
}

/** xfrm_policy_satisfied - has the packet come as its policy wants it? */
export function xfrm_policy_satisfied(policy: xfrm_policy, path: readonly xfrm_state[]): boolean {
  if (policy.action !== XFRM_POLICY_ALLOW) return false
  let k = 0
  for (let i = policy.xfrm_nr - 1; i >= 0; i--) {
    k = xfrm_policy_ok(xfrm_tmpl_of(policy, i), path, k)
    if (k < 0) return false
  }
  return !path.slice(k).some(x => x.mode === XFRM_MODE_TUNNEL)
}
