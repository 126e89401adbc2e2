/** xfrm4_policy.ts - bundles of IPv4: a chain of dst_entries, one for each state, that ends in a route; and what a packet is. No locks of its own. */
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import { ENOBUFS } from '../../lib/errno.js'
import { dst_destroy, dst_hold, type dst_ops, dst_release } from '../core/dst.js'
import { NETDEV_DOWN, register_netdevice_notifier } from '../core/netdevice.js'
import { pskb_may_pull } from '../core/skbuff.js'
import { DST, type dst_entry, type sk_buff } from '../core/types.js'
import {
  IP_OFFSET,
  IPPROTO_ICMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ip_daddr,
  ip_frag_off,
  ip_hdrlen,
  ip_protocol,
  ip_saddr,
  ip_tos,
} from '../wire/ipv4.js'
import { type Flow, STATE, XFRM_MODE_TUNNEL, XFRM_STATE_VALID, type xfrm_state } from '../xfrm/types.js'
import {
  xfrm_flush_bundles,
  type xfrm_policy_afinfo,
  xfrm_policy_init,
  xfrm_policy_register_afinfo,
} from '../xfrm/xfrm_policy.js'
import { xfrm_selector_match } from '../xfrm/xfrm_selector.js'
import { xfrm_state_init, xfrm_state_mtu, xfrm_state_put } from '../xfrm/xfrm_state.js'
import { xfrm_tunnel_init } from '../xfrm/xfrm_tunnel.js'
import { rt_alloc, rt_destroy, rt_drop, rt_set_dev } from './route.js'
import { ip_route_output_key } from './route_output.js'
import { ipv4_link_failure } from './route_slow.js'
import { RTABLE, type rtable } from './types.js'
import { xfrm4_output_sym } from './xfrm4_output.js'

const u8 = RAM.u8
const dv = RAM.dv
const TOS_MASK = 0x1c

/** _decode_session4 - ports, or type and code, where the packet has them. */
function decode_session(skb: sk_buff, fl: Flow): boolean {
  const iph = skb.nh
  const hlen = ip_hdrlen(iph)
  fl.proto = ip_protocol(iph)
  fl.daddr = ip_daddr(iph)
  fl.saddr = ip_saddr(iph)
  fl.tos = ip_tos(iph) & TOS_MASK
  if ((ip_frag_off(iph) & IP_OFFSET) !== 0) return true
  const need = iph + hlen + 4 - skb.data
  if (need > skb.len || !pskb_may_pull(skb, need)) return true // 2.6.11, too, leaves the ports 0
  const th = skb.nh + hlen
  if (fl.proto === IPPROTO_UDP || fl.proto === IPPROTO_TCP) {
    fl.sport = dv.getUint16(th)
    fl.dport = dv.getUint16(th + 2)
  } else if (fl.proto === IPPROTO_ICMP) {
    fl.sport = u8[th]!
    fl.dport = u8[th + 1]!
  }
  return true
}

// ---- bundles --------------------------------------------------------------------------------------------------------

const xfrm4_dst_ops: dst_ops = {
  destroy(dst) {
    const { child } = dst
    xfrm_state_put(STATE.ref(dst.xfrm))
    if (child !== null) {
      dst_release(child)
      if (child.xfrm !== 0) dst_destroy(child) // nobody else has ever seen it
    }
    rt_destroy(dst)
  },
  link_failure: skb => ipv4_link_failure(skb),
}
const xfrm4_dst_ops_sym = symbol('xfrm4_dst_ops', xfrm4_dst_ops)

/** The largest packet that all states leave room for. */
function bundle_mtu(states: readonly xfrm_state[], mtu: number): number {
  return states.reduceRight((m, x) => xfrm_state_mtu(x, m), mtu)
}

/** The route to the last tunnel's end, or the packet's own if there is no tunnel. @returns address of it, referenced, or -errno */
function route_to(states: readonly xfrm_state[], route: dst_entry): number {
  let last: xfrm_state | null = null
  for (const x of states) if (x.mode === XFRM_MODE_TUNNEL) last = x
  if (last !== null) return ip_route_output_key(last.daddr, last.saddr, 0, 0)
  dst_hold(route)
  return route.addr
}

/** One link of the chain; what it says to callers is what the packet's own route says. @consumes a reference of child, x */
function link(x: xfrm_state, child: dst_entry, path: dst_entry, of: rtable, r: rtable): void {
  for (const field of ['fl_dst', 'fl_src', 'fl_oif', 'fl_tos', 'rt_type', 'rt_flags', 'rt_src', 'rt_dst'] as const)
    r[field] = of[field]
  for (const field of ['rt_gateway', 'rt_spec_dst', 'rt_iif'] as const) r[field] = of[field]
  const { dst } = r
  rt_set_dev(r, path.dev!)
  dst.ops = xfrm4_dst_ops_sym
  dst.output = xfrm4_output_sym
  dst.input = of.dst.input
  dst.advmss = path.advmss
  dst.hoplimit = path.hoplimit
  dst.xfrm = x.addr
  dst.child = child
  dst.path = path
  dst.header_len = x.header_len + (child.xfrm === 0 ? 0 : child.header_len)
  dst.trailer_len = x.trailer_len + (child.xfrm === 0 ? 0 : child.trailer_len)
}

/** __xfrm4_bundle_create */
function bundle_create(states: xfrm_state[], route: dst_entry, fl: Flow): number {
  const to = route_to(states, route)
  if (to < 0) return to
  const links: rtable[] = []
  while (links.length < states.length) {
    const r = rt_alloc()
    if (r === null) break
    links.push(r)
  }
  const path = DST.ref(to)
  if (links.length < states.length) {
    for (const r of links) rt_drop(r)
    dst_release(path)
    return -ENOBUFS
  }
  let child = path
  for (let k = states.length - 1; k >= 0; k--) {
    link(states[k]!, child, path, RTABLE.ref(route.addr), links[k]!)
    child = links[k]!.dst
  }
  const head = links[0]!
  Object.assign(head, { fl_dst: fl.daddr, fl_src: fl.saddr, fl_oif: fl.oif, fl_tos: fl.tos })
  links.forEach((r, k) => {
    r.dst.mtu = bundle_mtu(states.slice(k), path.mtu)
  })
  return head.addr
}

/** xfrm_bundle_ok, and more: the very states that the policy asks for now, and the MTU that the path has now. */
function bundle_ok(bundle: dst_entry, states: readonly xfrm_state[], route: dst_entry, fl: Flow): boolean {
  const r = RTABLE.ref(bundle.addr)
  const { path } = bundle
  if (path === null || path.obsolete !== 0 || r.fl_dst !== fl.daddr || r.fl_src !== fl.saddr) return false
  if (r.fl_oif !== fl.oif || r.fl_tos !== fl.tos || r.rt_flags !== RTABLE.ref(route.addr).rt_flags) return false
  let dst: dst_entry | null = bundle
  for (const x of states) {
    if (dst === null || dst.xfrm !== x.addr || x.state !== XFRM_STATE_VALID) return false
    if (!xfrm_selector_match(x.sel, fl)) return false
    dst = dst.child
  }
  const own_route = states.some(x => x.mode === XFRM_MODE_TUNNEL) || path === route
  return own_route && dst === path && bundle.mtu === bundle_mtu(states, path.mtu)
}

const xfrm4_policy_afinfo: xfrm_policy_afinfo = { decode_session, bundle_create, bundle_ok }
const xfrm4_policy_afinfo_sym = symbol('xfrm4_policy_afinfo', xfrm4_policy_afinfo)

/** A device goes: bundles through it hold it. */
function xfrm_dev_event(_nb: notifier_block, event: number): number {
  if (event === NETDEV_DOWN) xfrm_flush_bundles()
  return NOTIFY_DONE
}
const xfrm_dev_event_sym = symbol('xfrm_dev_event', xfrm_dev_event)
const xfrm_dev_notifier = DEFINE_STATIC('xfrm_dev_notifier', NOTIFIER)

/** xfrm4_init - @context boot, CPU 0 */
export function xfrm4_init(seed: number): void {
  xfrm_state_init(seed)
  xfrm_tunnel_init()
  xfrm_policy_init()
  xfrm_policy_register_afinfo(xfrm4_policy_afinfo_sym)
  xfrm_dev_notifier.call = xfrm_dev_event_sym
  register_netdevice_notifier(xfrm_dev_notifier)
}
