/**
 * rtnl_cache.ts - the route cache towards programs: what way a packet would take (`ip route get`), and what is cached
 * (`ip route show cache`). Lookups as for packets; a dump walks the chains under rcu_read_lock_bh.
 */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { jiffies } from '../../irq/timer.js'
import { EHOSTUNREACH, EINVAL, EMSGSIZE, ENOBUFS, ENODEV } from '../../lib/errno.js'
import { RT_HASH_BUCKETS } from '../../lib/limits.js'
import { rcu_read_lock_bh, rcu_read_unlock_bh } from '../../rcu/rcupdate.js'
import { local_bh_disable, local_bh_enable } from '../../sync/bh.js'
import { drop_reason } from '../core/fate.js'
import { dev_get_by_index, dev_put } from '../core/netdevice.js'
import { alloc_skb, consume_skb } from '../core/skbuff.js'
import type { sk_buff } from '../core/types.js'
import {
  NLMSG_GOODSIZE,
  nlmsg_data,
  nlmsg_end,
  nlmsg_room,
  nlmsg_seq,
  rta_addr,
  rta_payload,
  rta_put,
  rta_put_addr,
  rta_put_u32,
  rta_u32,
} from '../netlink/nlmsg.js'
import { RTM_NEWROUTE, rtnl_unicast } from '../netlink/rtnetlink.js'
import { NLM_F_MULTI, type netlink_callback, netlink_cb } from '../netlink/types.js'
import { ETH_P_IP } from '../wire/eth.js'
import { RT_TABLE_MAIN } from './fib_hash.js'
import { RT_SCOPE_UNIVERSE, RTAX_ADVMSS, RTAX_HOPLIMIT, RTAX_LOCK, RTAX_MTU, RTPROT_UNSPEC } from './fib_types.js'
import { ip_rt_put, rt_bucket } from './route.js'
import { ip_route_output_key } from './route_output.js'
import { ip_route_input } from './route_slow.js'
import {
  RTA_CACHEINFO,
  RTA_DST,
  RTA_GATEWAY,
  RTA_IIF,
  RTA_OIF,
  RTA_PREFSRC,
  RTA_SRC,
  RTM_F_CLONED,
  RTM_F_NOTIFY,
  rtmsg_put,
  rtnetlink_put_metrics,
} from './rtnl_route.js'
import { RTABLE, RTCF_NOTIFY, type rtable } from './types.js'

const dv = RAM.dv
const i32 = RAM.i32
const u8 = RAM.u8
const NOT_FORWARDING = drop_reason('ip_not_forwarding')
const CACHE_SPACE = 16 + 12 + 7 * 8 + 36 + 4 + 5 * 8

/** The metrics of a cached route, by number. */
function metric_of(rt: rtable, k: number): number {
  if (k === RTAX_LOCK) return rt.dst.mtu_locked !== 0 ? 1 << RTAX_MTU : 0
  if (k === RTAX_MTU) return rt.dst.mtu
  if (k === RTAX_ADVMSS) return rt.dst.advmss
  return k === RTAX_HOPLIMIT ? rt.dst.hoplimit : 0
}

/** struct rta_cacheinfo: references, since the last use, expiry, error, uses; then the identification and timestamps of TCP. */
function put_cacheinfo(skb: sk_buff, rt: rtable): void {
  const at = rta_put(skb, RTA_CACHEINFO, 32)
  const { refcnt, lastuse, expires, error, use } = rt.dst
  const words = [refcnt, (jiffies() - lastuse) | 0, expires === 0 ? 0 : (expires - jiffies()) | 0, -error, use]
  words.forEach((word, k) => {
    dv.setInt32(at + k * 4, word, true)
  })
}

/** rt_fill_info - @returns false: there is no room */
function rt_fill_info(skb: sk_buff, rt: rtable, pid: number, seq: number, flags: number): boolean {
  if (!nlmsg_room(skb, CACHE_SPACE)) return false
  const head = { pid, seq, type: RTM_NEWROUTE, flags }
  const nlh = rtmsg_put(skb, head, {
    ...{
      dst_len: 32,
      src_len: rt.fl_src !== 0 ? 32 : 0,
      tos: rt.fl_tos,
      table: RT_TABLE_MAIN,
      protocol: RTPROT_UNSPEC,
    },
    ...{ scope: RT_SCOPE_UNIVERSE, type: rt.rt_type },
    flags: (rt.rt_flags & ~0xffff) | RTM_F_CLONED | ((rt.rt_flags & RTCF_NOTIFY) !== 0 ? RTM_F_NOTIFY : 0),
  })
  rta_put_addr(skb, RTA_DST, rt.rt_dst)
  if (rt.fl_src !== 0) rta_put_addr(skb, RTA_SRC, rt.fl_src)
  if (rt.dst.dev !== null) rta_put_u32(skb, RTA_OIF, rt.dst.dev.ifindex)
  if (rt.fl_iif === 0 || rt.rt_src !== rt.fl_src) rta_put_addr(skb, RTA_PREFSRC, rt.rt_src)
  if (rt.rt_dst !== rt.rt_gateway) rta_put_addr(skb, RTA_GATEWAY, rt.rt_gateway)
  rtnetlink_put_metrics(skb, k => metric_of(rt, k))
  put_cacheinfo(skb, rt)
  if (rt.fl_iif !== 0) rta_put_u32(skb, RTA_IIF, rt.fl_iif)
  nlmsg_end(skb, nlh)
  return true
}

/** ip_rt_dump - the cache. @context process */
export function ip_rt_dump(skb: sk_buff, cb: netlink_callback): number {
  const at = cb.args >> 2 // bucket, entries of it
  const { pid } = netlink_cb(cb.skb!)
  const seq = nlmsg_seq(cb.nlh)
  let b = i32[at]!
  let skip = i32[at + 1]!
  for (; b < RT_HASH_BUCKETS; b++) {
    let n = 0
    let full = false
    rcu_read_lock_bh()
    for (let rt = RTABLE.at(rt_bucket(b).chain); rt !== null && !full; rt = RTABLE.at(i32[rt.$w]!))
      if (n++ >= skip) full = !rt_fill_info(skb, rt, pid, seq, NLM_F_MULTI)
    rcu_read_unlock_bh()
    skip = full ? n - 1 : 0
    if (full) break
  }
  i32[at] = b
  i32[at + 1] = skip
  return skb.len
}

/** The way of a packet of somebody else that comes in by `iif`. @returns address of a referenced route, -errno */
function input_route(dst: number, src: number, tos: number, iif: number): number {
  const dev = dev_get_by_index(iif)
  if (dev === null) return -ENODEV
  const skb = alloc_skb(64)
  let found = -ENOBUFS
  if (skb !== null) {
    skb.mac = skb.data
    skb.nh = skb.data
    skb.dev = dev
    skb.protocol = ETH_P_IP
    local_bh_disable()
    const reason = ip_route_input(skb, dst, src, tos, dev)
    local_bh_enable()
    const rt = skb.dst
    skb.dst = null
    if (reason !== 0) found = reason === NOT_FORWARDING ? -EHOSTUNREACH : -EINVAL
    else found = rt!.error !== 0 ? rt!.error : rt!.addr
    if (found < 0 && rt !== null) ip_rt_put(RTABLE.ref(rt.addr))
    consume_skb(skb)
  }
  dev_put(dev)
  return found
}

/** inet_rtm_getroute - what way would it be? @context process @locks rtnl is held @returns 0, -errno */
function inet_rtm_getroute(in_skb: sk_buff, nlh: number, rta: number[]): number {
  if ([RTA_DST, RTA_SRC, RTA_OIF, RTA_IIF].some(type => rta[type - 1]! !== 0 && rta_payload(rta[type - 1]!) < 4))
    return -EINVAL
  const addr = (type: number): number => (rta[type - 1]! === 0 ? 0 : rta_addr(rta[type - 1]!))
  const number = (type: number): number => (rta[type - 1]! === 0 ? 0 : rta_u32(rta[type - 1]!))
  const rtm = nlmsg_data(nlh)
  const tos = u8[rtm + 3]!
  const iif = number(RTA_IIF)
  const found =
    iif !== 0
      ? input_route(addr(RTA_DST), addr(RTA_SRC), tos, iif)
      : ip_route_output_key(addr(RTA_DST), addr(RTA_SRC), tos, number(RTA_OIF))
  if (found < 0) return found
  const rt = RTABLE.ref(found)
  if ((dv.getInt32(rtm + 8, true) & RTM_F_NOTIFY) !== 0) rt.rt_flags |= RTCF_NOTIFY
  const { pid } = netlink_cb(in_skb)
  const skb = alloc_skb(NLMSG_GOODSIZE)
  const filled = skb !== null && rt_fill_info(skb, rt, pid, nlmsg_seq(nlh), 0)
  ip_rt_put(rt)
  if (skb === null) return -ENOBUFS
  if (filled) return rtnl_unicast(skb, pid)
  consume_skb(skb)
  return -EMSGSIZE
}
export const inet_rtm_getroute_sym = symbol('inet_rtm_getroute', inet_rtm_getroute)
