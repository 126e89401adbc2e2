/** xfrm_selector.ts - which packets are meant (net/xfrm/xfrm.h of 2.6.11). No locks: selectors do not change. */
import type { Flow, xfrm_selector, xfrm_state, xfrm_tmpl } from './types.js'

function masked(a: number, b: number, len: number): boolean {
  return len === 0 || ((a ^ b) & (-1 << (32 - len))) === 0
}
/** xfrm_selector_match - is the packet meant? */
export function xfrm_selector_match(sel: xfrm_selector, fl: Flow): boolean {
  return (
    masked(fl.daddr, sel.daddr, sel.prefixlen_d) &&
    masked(fl.saddr, sel.saddr, sel.prefixlen_s) &&
    ((sel.dport ^ fl.dport) & sel.dport_mask) === 0 &&
    ((sel.sport ^ fl.sport) & sel.sport_mask) === 0 &&
    (sel.proto === fl.proto || sel.proto === 0) &&
    (sel.ifindex === fl.oif || sel.ifindex === 0)
  )
}

/** xfrm_init_tempsel - what a state that is to be negotiated is for: this flow only. */
export function xfrm_init_tempsel(x: xfrm_state, fl: Flow, t: xfrm_tmpl, daddr: number, saddr: number): void {
  const { sel } = x
  Object.assign(sel, { daddr: fl.daddr, saddr: fl.saddr, dport: fl.dport, sport: fl.sport, proto: fl.proto, family: 2 })
  Object.assign(sel, { dport_mask: 0xffff, sport_mask: 0xffff, prefixlen_d: 32, prefixlen_s: 32, ifindex: fl.oif })
  Object.assign(x, { daddr: t.daddr !== 0 ? t.daddr : daddr, saddr: t.saddr !== 0 ? t.saddr : saddr })
  Object.assign(x, { spi: t.spi, proto: t.proto, mode: t.mode, reqid: t.reqid })
}
