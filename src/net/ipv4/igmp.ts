/**
 * igmp.ts - what hosts tell multicast routers (net/ipv4/igmp.c of 2.6.11, as far as RFC 1112 and RFC 2236 go): reports of groups when
 * they are joined and when a router asks, a word when the last member leaves. Queries of version 3 are answered by version 2, as
 * RFC 3376 wants it of such hosts.
 *
 * Lock charter: ip_mc.ts.
 */
import { DEFINE_STATIC } from '../../abi/section.js'
import { type Sym, symbol } from '../../abi/symbol.js'
import { hz } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../irq/notifier.js'
import {
  del_timer,
  del_timer_sync,
  init_timer,
  jiffies,
  mod_timer,
  time_after,
  type timer_func,
  timer_pending,
} from '../../irq/timer.js'
import { csum_fold, csum_partial } from '../../lib/checksum.js'
import { kmem_cache_alloc, kmem_cache_free } from '../../mm/slab.js'
import { local_bh_disable, local_bh_enable, spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { drop_reason, fate_made } from '../core/fate.js'
import { NETDEV_DOWN, NETDEV_UP, register_netdevice_notifier } from '../core/netdevice.js'
import {
  alloc_skb,
  kfree_skb,
  pskb_may_pull,
  skb_delivered,
  skb_linearize,
  skb_put,
  skb_reserve,
} from '../core/skbuff.js'
import { ACCT_LOCAL, IFF_UP, NETDEV, PACKET_HOST, type sk_buff } from '../core/types.js'
import {
  IGMP_ALL_HOSTS,
  IGMP_ALL_ROUTER,
  IGMP_HLEN,
  IGMP_HOST_LEAVE_MESSAGE,
  IGMP_HOST_MEMBERSHIP_QUERY,
  IGMP_HOST_MEMBERSHIP_REPORT,
  IGMPV2_HOST_MEMBERSHIP_REPORT,
  igmp_code,
  igmp_group,
  igmp_type,
  set_igmp_csum,
  set_igmp_header,
} from '../wire/igmp.js'
import {
  IP_DF,
  set_ip_daddr,
  set_ip_frag_off,
  set_ip_id,
  set_ip_protocol,
  set_ip_saddr,
  set_ip_tos,
  set_ip_ttl,
  set_ip_vhl,
} from '../wire/ipv4.js'
import { ipv4_devconf_all } from './devconf.js'
import { in_dev_get, type in_device, rt_flush } from './devinet.js'
import { ip_select_ident } from './ip_ident.js'
import { inet_add_protocol } from './ip_input.js'
import {
  find_group,
  first_group,
  IP_MC_LIST,
  IPPROTO_IGMP,
  igmp,
  ip_mc_init,
  type ip_mc_list,
  link_group,
  mc_list_cache,
  unlink_group,
} from './ip_mc.js'
import { ip_local_out } from './ip_output.js'
import { ip_rt_put } from './route.js'
import { ip_route_output } from './route_output.js'
import { RTABLE } from './types.js'

const dv = RAM.dv
const MALFORMED = drop_reason('igmp_malformed')

/** Jiffies. */
const V1_ROUTER_PRESENT = (): number => 400 * hz()
const QUERY_RESPONSE_V1 = (): number => 10 * hz()
const INITIAL_REPORT_DELAY = (): number => hz()
const UNSOLICITED_REPORT_INTERVAL = (): number => 10 * hz()
const UNSOLICITED_REPORT_COUNT = 2
/** Of the link header, and of an IP header with the option that makes routers look (RFC 2113). */
const LL_SPACE = 16
const HLEN = 24

// ---- sending --------------------------------------------------------------------------------------------------------

/** igmp_send_report - @context process with bottom halves off, softirq */
function igmp_send_report(in_dev: in_device, group: number, type: number): void {
  const dst = type === IGMP_HOST_LEAVE_MESSAGE ? IGMP_ALL_ROUTER : group
  const rt = ip_route_output(dst, 0, 0, in_dev.dev!.ifindex)
  if (rt === null) return
  const skb = rt.rt_src === 0 ? null : alloc_skb(LL_SPACE + HLEN + IGMP_HLEN)
  if (skb === null) {
    ip_rt_put(rt)
    return
  }
  skb.dst = rt.dst
  skb_reserve(skb, LL_SPACE)
  const iph = skb_put(skb, HLEN)
  skb.nh = iph
  set_ip_vhl(iph, HLEN)
  set_ip_tos(iph, 0)
  set_ip_id(iph, ip_select_ident(rt))
  set_ip_frag_off(iph, IP_DF)
  set_ip_ttl(iph, 1)
  set_ip_protocol(iph, IPPROTO_IGMP)
  set_ip_saddr(iph, rt.rt_src)
  set_ip_daddr(iph, dst)
  dv.setInt32(iph + 20, 0x94040000 | 0) // router alert
  const ih = skb_put(skb, IGMP_HLEN)
  set_igmp_header(ih, type, group)
  set_igmp_csum(ih, csum_fold(csum_partial(dv, ih, IGMP_HLEN, 0)))
  skb.acct = ACCT_LOCAL
  fate_made()
  ip_local_out(skb)
}

/** igmp_v1_seen - is there a router of version 1 on the link? It would not understand the others. */
export function igmp_v1_seen(in_dev: in_device): boolean {
  if (in_dev.cnf.force_igmp_version === 1 || ipv4_devconf_all.force_igmp_version === 1) return true
  return in_dev.mr_v1_seen !== 0 && !time_after(jiffies(), in_dev.mr_v1_seen)
}

// ---- timers ---------------------------------------------------------------------------------------------------------

/** Some time up to `max_delay`, so that not all members speak at once. @locks igmp.lock is held */
function igmp_start_timer(im: ip_mc_list, max_delay: number): void {
  igmp.rand = (Math.imul(igmp.rand, 1103515245) + 12345) | 0
  mod_timer(im.timer, jiffies() + ((igmp.rand >>> 8) % max_delay) + 2)
}
function igmp_stop_timer(im: ip_mc_list): void {
  del_timer(im.timer)
  im.reporter = 0
  im.unsolicit_count = 0
}
/** A router asks: one that is due sooner stays. @locks igmp.lock is held */
function igmp_mod_timer(im: ip_mc_list, max_delay: number): void {
  im.unsolicit_count = 0
  if (timer_pending(im.timer) && ((im.timer.expires - jiffies()) | 0) < max_delay) return
  igmp_start_timer(im, max_delay)
}

/** A report is due. @context softirq */
function igmp_timer_expire(addr: number): void {
  const im = IP_MC_LIST.ref(addr)
  const in_dev = im.interface!
  spin_lock_bh(igmp.lock)
  if (im.unsolicit_count > 0) {
    im.unsolicit_count--
    igmp_start_timer(im, UNSOLICITED_REPORT_INTERVAL())
  }
  im.reporter = 1
  const type = igmp_v1_seen(in_dev) ? IGMP_HOST_MEMBERSHIP_REPORT : IGMPV2_HOST_MEMBERSHIP_REPORT
  spin_unlock_bh(igmp.lock)
  igmp_send_report(in_dev, im.multiaddr, type)
}
const igmp_timer_expire_sym: Sym<timer_func> = symbol('igmp_timer_expire', igmp_timer_expire)

// ---- what routers and neighbours say --------------------------------------------------------------------------------

/** Somebody else has told the router already. */
function igmp_heard_report(in_dev: in_device, group: number): void {
  if (group === IGMP_ALL_HOSTS) return
  spin_lock_bh(igmp.lock)
  const im = find_group(in_dev, group)
  if (im !== null) igmp_stop_timer(im)
  spin_unlock_bh(igmp.lock)
}

/** A router asks for one group, or for all. */
function igmp_heard_query(in_dev: in_device, ih: number): void {
  const code = igmp_code(ih)
  const group = code === 0 ? 0 : igmp_group(ih)
  spin_lock_bh(igmp.lock)
  if (code === 0) in_dev.mr_v1_seen = jiffies() + V1_ROUTER_PRESENT() || 1
  const max_delay = code === 0 ? QUERY_RESPONSE_V1() : Math.max(1, Math.floor((code * hz()) / 10))
  for (let im = first_group(in_dev); im !== null; im = im.next)
    if (im.multiaddr !== IGMP_ALL_HOSTS && (group === 0 || group === im.multiaddr)) igmp_mod_timer(im, max_delay)
  spin_unlock_bh(igmp.lock)
}

/** igmp_rcv - @context softirq @consumes skb */
function igmp_rcv(skb: sk_buff): number {
  const in_dev = in_dev_get(skb.dev!)
  const sound =
    pskb_may_pull(skb, IGMP_HLEN) && skb_linearize(skb) === 0 && csum_fold(csum_partial(dv, skb.data, skb.len, 0)) === 0
  if (in_dev === null || !sound) {
    kfree_skb(skb, MALFORMED)
    return 0
  }
  const ih = skb.data
  switch (igmp_type(ih)) {
    case IGMP_HOST_MEMBERSHIP_QUERY:
      igmp_heard_query(in_dev, ih)
      break
    case IGMP_HOST_MEMBERSHIP_REPORT:
    case IGMPV2_HOST_MEMBERSHIP_REPORT:
      // Our own comes back with the route that it was sent by; what is sent to us alone tells nothing of the others.
      if (RTABLE.ref(skb.dst!.addr).fl_iif !== 0 && skb.pkt_type !== PACKET_HOST)
        igmp_heard_report(in_dev, igmp_group(ih))
      break
  }
  skb_delivered(skb)
  return 0
}
const igmp_rcv_sym = symbol('igmp_rcv', igmp_rcv)

// ---- joining and leaving --------------------------------------------------------------------------------------------

function igmp_group_added(im: ip_mc_list): void {
  if (im.multiaddr === IGMP_ALL_HOSTS || (im.interface!.dev!.flags & IFF_UP) === 0) return
  spin_lock_bh(igmp.lock)
  im.unsolicit_count = UNSOLICITED_REPORT_COUNT
  igmp_start_timer(im, INITIAL_REPORT_DELAY())
  spin_unlock_bh(igmp.lock)
}
/** No timer runs afterwards. */
function igmp_group_dropped(im: ip_mc_list): void {
  spin_lock_bh(igmp.lock)
  const { reporter } = im
  igmp_stop_timer(im)
  spin_unlock_bh(igmp.lock)
  del_timer_sync(im.timer)
  const in_dev = im.interface!
  if (reporter === 0 || igmp_v1_seen(in_dev) || (in_dev.dev!.flags & IFF_UP) === 0) return
  local_bh_disable()
  igmp_send_report(in_dev, im.multiaddr, IGMP_HOST_LEAVE_MESSAGE)
  local_bh_enable()
}

/** ip_mc_inc_group - one more who wants to hear a group on an interface. @context process @locks rtnl is held @returns false: no memory */
export function ip_mc_inc_group(in_dev: in_device, addr: number): boolean {
  const known = find_group(in_dev, addr)
  if (known !== null) {
    known.users++
    return true
  }
  const im = kmem_cache_alloc(mc_list_cache)
  if (im === null) return false
  im.interface = in_dev
  im.multiaddr = addr
  im.users = 1
  im.reporter = 0
  im.unsolicit_count = 0
  init_timer(im.timer, igmp_timer_expire_sym, im.addr)
  link_group(in_dev, im)
  igmp_group_added(im)
  rt_flush() // routes of the group know whether we hear it
  return true
}
/** ip_mc_dec_group - and one less. @context process @locks rtnl is held */
export function ip_mc_dec_group(in_dev: in_device, addr: number): void {
  const im = find_group(in_dev, addr)
  if (im === null || --im.users > 0) return
  unlink_group(in_dev, im)
  igmp_group_dropped(im)
  kmem_cache_free(mc_list_cache, im)
  rt_flush()
}

/** ip_mc_destroy_dev - an interface goes, and all its groups with it. @context process, or a machine at rest @locks rtnl is held */
export function ip_mc_destroy_dev(in_dev: in_device): void {
  for (let im = first_group(in_dev); im !== null; im = first_group(in_dev)) {
    im.users = 1
    ip_mc_dec_group(in_dev, im.multiaddr)
  }
}

/** Every interface that is up is in the group of all hosts. @locks rtnl is held */
function igmp_netdev_event(_nb: notifier_block, event: number, data: number): number {
  const in_dev = in_dev_get(NETDEV.ref(data))
  if (in_dev === null) return NOTIFY_DONE
  if (event === NETDEV_UP) {
    in_dev.mr_v1_seen = 0
    if (find_group(in_dev, IGMP_ALL_HOSTS) === null) ip_mc_inc_group(in_dev, IGMP_ALL_HOSTS)
    for (let im = first_group(in_dev); im !== null; im = im.next) igmp_group_added(im)
  } else if (event === NETDEV_DOWN) {
    ip_mc_dec_group(in_dev, IGMP_ALL_HOSTS)
    for (let im = first_group(in_dev); im !== null; im = im.next) igmp_group_dropped(im)
  }
  return NOTIFY_DONE
}
const igmp_netdev_event_sym = symbol('igmp_netdev_event', igmp_netdev_event)
const igmp_netdev_notifier = DEFINE_STATIC('igmp_netdev_notifier', NOTIFIER)

/** igmp_init - @context boot, CPU 0 */
export function igmp_init(seed: number): void {
  ip_mc_init(seed)
  igmp_netdev_notifier.call = igmp_netdev_event_sym
  register_netdevice_notifier(igmp_netdev_notifier)
  inet_add_protocol(IPPROTO_IGMP, igmp_rcv_sym)
}
