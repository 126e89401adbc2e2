/** types.ts - the structs that the files of IPv4 share; no behaviour. */
import { atomic, embed, konst, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DST, type dst_entry } from '../core/types.js'

export class rtable extends Struct {
  declare dst: dst_entry
  declare fl_dst: number
  declare fl_src: number
  declare fl_iif: number
  declare fl_oif: number
  declare fl_tos: number
  declare fl_mark: number
  declare hash: number
  declare rt_flags: number
  declare rt_type: number
  declare rt_dst: number
  declare rt_src: number
  declare rt_iif: number
  declare rt_gateway: number
  declare rt_spec_dst: number
  declare peer: number
}
/** An entry of the route cache. All but the head is constant once it is hashed, so readers need no lock. */
export const RTABLE: Layout<rtable> = layout('rtable', rtable, {
  dst: embed(DST),
  fl_dst: konst(word), // the key: what was asked for
  fl_src: konst(word),
  fl_iif: konst(word), // 0 for output routes
  fl_oif: konst(word),
  fl_tos: konst(word),
  fl_mark: konst(word), // nfmark, for rules that go by it
  hash: konst(word),
  rt_flags: konst(word), // RTCF_*
  rt_type: konst(word), // RTN_*
  rt_dst: konst(word), // the answer
  rt_src: konst(word),
  rt_iif: konst(word),
  rt_gateway: konst(word), // next hop's address
  rt_spec_dst: konst(word), // source address for answers to such packets
  peer: atomic(word), // address of the inet_peer of rt_dst, with a reference; 0: not asked for yet
})

// rt_flags
export const RTCF_NOTIFY = 0x00010000 // somebody asked for it by netlink
export const RTCF_REDIRECTED = 0x00040000
export const RTCF_BROADCAST = 0x10000000
export const RTCF_MULTICAST = 0x20000000
export const RTCF_LOCAL = 0x80000000 | 0
export const RTCF_DOREDIRECT = 0x01000000
export const RTCF_DIRECTSRC = 0x04000000

export class inet_skb_parm extends Struct {
  declare optlen: number
  declare srr: number
  declare rr: number
  declare ts: number
  declare router_alert: number
  declare is_changed: number
  declare srr_is_hit: number
  declare rr_needaddr: number
  declare ts_needtime: number
  declare ts_needaddr: number
}
/** IPCB: what IP keeps in skb.cb: where the options are, as offsets from the IP header; 0 means absent. 40 bytes. */
export const IPCB: Layout<inet_skb_parm> = layout('inet_skb_parm', inet_skb_parm, {
  optlen: own(word), // bytes of options
  srr: own(word), // loose or strict source route
  rr: own(word), // record route
  ts: own(word), // timestamp
  router_alert: own(word),
  is_changed: own(word), // the header was changed: checksum must be computed anew
  srr_is_hit: own(word), // we are a stop of the source route
  rr_needaddr: own(word),
  ts_needtime: own(word),
  ts_needaddr: own(word),
})

/** Counters of the IP MIB, RFC 1213, in the order of /proc/net/snmp. */
export const IP_MIB = [
  'InReceives',
  'InHdrErrors',
  'InAddrErrors',
  'ForwDatagrams',
  'InUnknownProtos',
  'InDiscards',
  'InDelivers',
  'OutRequests',
  'OutDiscards',
  'OutNoRoutes',
  'ReasmTimeout',
  'ReasmReqds',
  'ReasmOKs',
  'ReasmFails',
  'FragOKs',
  'FragFails',
  'FragCreates',
  'InTruncatedPkts',
] as const

export class ip_mib extends Struct {
  declare InReceives: number
  declare InHdrErrors: number
  declare InAddrErrors: number
  declare ForwDatagrams: number
  declare InUnknownProtos: number
  declare InDiscards: number
  declare InDelivers: number
  declare OutRequests: number
  declare OutDiscards: number
  declare OutNoRoutes: number
  declare ReasmTimeout: number
  declare ReasmReqds: number
  declare ReasmOKs: number
  declare ReasmFails: number
  declare FragOKs: number
  declare FragFails: number
  declare FragCreates: number
  declare InTruncatedPkts: number
}
export const IP_MIB_LAYOUT: Layout<ip_mib> = layout('ip_mib', ip_mib, {
  InReceives: own(word),
  InHdrErrors: own(word),
  InAddrErrors: own(word),
  ForwDatagrams: own(word),
  InUnknownProtos: own(word),
  InDiscards: own(word),
  InDelivers: own(word),
  OutRequests: own(word),
  OutDiscards: own(word),
  OutNoRoutes: own(word),
  ReasmTimeout: own(word),
  ReasmReqds: own(word),
  ReasmOKs: own(word),
  ReasmFails: own(word),
  FragOKs: own(word),
  FragFails: own(word),
  FragCreates: own(word),
  InTruncatedPkts: own(word),
})
