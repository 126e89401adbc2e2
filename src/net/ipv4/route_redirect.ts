/**
 * route_redirect.ts - redirects of others: a gateway on the link says that another one there is nearer. What it says counts for
 * cached routes of our own to that host, if it comes from the gateway that they go by (ip_rt_redirect of 2.6.11).
 *
 * Lock charter
 *   Cached routes are looked for under rcu_read_lock and held; they are replaced under their bucket's lock (route.ts).
 */

import { dst_hold } from '../core/dst.js'
import { NUD_VALID } from '../core/neighbour.js'
import { neigh_confirm, neigh_event_send } from '../core/nud.js'
import { __skb_pull, pskb_may_pull } from '../core/skbuff.js'
import type { net_device, sk_buff } from '../core/types.js'
import { ICMP_HLEN, icmp_info } from '../wire/icmp.js'
import { ip_daddr, ip_saddr, ip_tos, ipv4_is_badclass, ipv4_is_multicast, ipv4_is_zeronet } from '../wire/ipv4.js'
import { in_dev_andconf, in_dev_forwards, in_dev_get, in_dev_orconf, inet_addr_onlink } from './devinet.js'
import { inet_addr_type } from './fib_frontend.js'
import { ip_fib_check_default } from './fib_semantics.js'
import { RTN_UNICAST } from './fib_types.js'
import { arp_bind_neighbour, ip_rt_put, rt_clone, rt_del, rt_drop, rt_each_output, rt_intern_hash } from './route.js'
import { RTCF_REDIRECTED, type rtable } from './types.js'

/** Do redirects count here? A host believes them unless it is told not to, a router only if it is told to. */
function rx_redirects(dev: net_device): boolean {
  return in_dev_forwards(dev) ? in_dev_andconf(dev, 'accept_redirects') : in_dev_orconf(dev, 'accept_redirects')
}

/** May this be a better gateway? */
function credible(old_gw: number, new_gw: number, dev: net_device): boolean {
  if (in_dev_get(dev) === null || new_gw === old_gw || !rx_redirects(dev)) return false
  if (ipv4_is_multicast(new_gw) || ipv4_is_badclass(new_gw) || ipv4_is_zeronet(new_gw)) return false
  if (in_dev_orconf(dev, 'shared_media')) return inet_addr_type(new_gw) === RTN_UNICAST
  if (!inet_addr_onlink(dev, new_gw, old_gw)) return false
  return !in_dev_orconf(dev, 'secure_redirects') || ip_fib_check_default(new_gw, dev)
}

/** The same route, by another gateway, takes the place of this one once that gateway's station address is known. */
function replace(old: rtable, new_gw: number): void {
  const rt = rt_clone(old)
  if (rt === null) return
  rt.rt_flags |= RTCF_REDIRECTED
  rt.rt_gateway = new_gw
  neigh_confirm(old.dst.neighbour) // it is there, and it knows the way
  const bound = arp_bind_neighbour(rt) === 0
  const neigh = rt.dst.neighbour
  if (!bound || neigh === null || (neigh.nud_state & NUD_VALID) === 0) {
    if (neigh !== null) neigh_event_send(neigh)
    rt_drop(rt)
    return
  }
  rt_del(old)
  ip_rt_put(rt_intern_hash(rt))
}

/** ip_rt_redirect - packets of ours to `daddr` from `saddr` that went by `old_gw` are to go by `new_gw`. @context softirq */
export function ip_rt_redirect(
  old_gw: number,
  daddr: number,
  new_gw: number,
  saddr: number,
  tos: number,
  dev: net_device,
): void {
  if (!credible(old_gw, new_gw, dev)) return
  for (const src of [saddr, 0])
    for (const oif of [dev.ifindex, 0]) {
      const found: rtable[] = []
      rt_each_output(daddr, src, oif, tos, rt => {
        const meant = rt.rt_dst === daddr && rt.rt_src === saddr && rt.rt_gateway === old_gw && rt.dst.dev === dev
        if (!meant || rt.dst.error !== 0) return
        dst_hold(rt.dst)
        found.push(rt)
      })
      for (const rt of found) {
        replace(rt, new_gw)
        ip_rt_put(rt)
      }
    }
}

/** icmp_redirect - all kinds are taken for those of one host. @context softirq @returns false: malformed */
export function icmp_redirect(skb: sk_buff): boolean {
  if (!pskb_may_pull(skb, ICMP_HLEN + 20)) return false
  skb.h = skb.data
  const gateway = icmp_info(skb.h)
  const iph = __skb_pull(skb, ICMP_HLEN)
  ip_rt_redirect(ip_saddr(skb.nh), ip_daddr(iph), gateway, ip_saddr(iph), ip_tos(iph), skb.dev!)
  return true
}
