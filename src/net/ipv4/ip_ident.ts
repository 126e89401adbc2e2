/**
 * ip_ident.ts - the identification of packets of our own that may be cut: one counter for each destination, so that nobody can
 * tell from it what is sent to others, and no two packets that are on their way to one host have the same (__ip_select_ident).
 *
 * Lock charter
 *   rtable.peer is set once, by compare and exchange; the reference goes with the route.
 */
import { cmpxchg } from '../../arch/atomic.js'
import { inet_getid, inet_getid_fallback, inet_getpeer, inet_putpeer, PEER } from './inetpeer.js'
import { RTABLE, type rtable } from './types.js'

const PEER_FIELD = RTABLE.offset('peer')

/** rt_bind_peer - the route knows the host that it leads to. */
export function rt_bind_peer(rt: rtable): void {
  const peer = inet_getpeer(rt.rt_dst, true)
  if (peer !== null && cmpxchg(rt.addr + PEER_FIELD, 0, peer.addr) !== 0) inet_putpeer(peer) // another CPU was faster
}

/** ip_select_ident - of the next packet on this route, 0 to 65535. @context process, softirq */
export function ip_select_ident(rt: rtable): number {
  if (rt.peer === 0) rt_bind_peer(rt)
  const { peer } = rt
  return peer !== 0 ? inet_getid(PEER.ref(peer)) : inet_getid_fallback(rt.rt_dst)
}
