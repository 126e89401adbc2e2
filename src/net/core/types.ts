/** types.ts - the structs of the network core, which name each other; a C header: no behaviour. */
import { atomic, by, bytes, embed, konst, type Layout, layout, own, ptr, rcu, Struct, word } from '../../abi/layout.js'
import { LIST, type list_head } from '../../abi/list.js'
import type { Sym } from '../../abi/symbol.js'
import { TIMER, type timer_list } from '../../irq/timer.js'
import { MAX_SKB_FRAGS } from '../../lib/limits.js'
import { RCU_HEAD, type rcu_head } from '../../rcu/types.js'
import { RWLOCK, type rwlock_t } from '../../sync/rwlock.js'
import { SPINLOCK, type spinlock_t } from '../../sync/spinlock.js'

// ---- sk_buff --------------------------------------------------------------------------------------------------------

export class sk_buff extends Struct {
  declare next: sk_buff | null
  declare prev: sk_buff | null
  declare list: sk_buff_head | null
  declare head: number
  declare data: number
  declare tail: number
  declare end: number
  declare len: number
  declare data_len: number
  declare mac_len: number
  declare mac: number
  declare nh: number
  declare h: number
  declare dev: net_device | null
  declare input_dev: net_device | null
  declare dst: dst_entry | null
  declare sk: number
  declare users: number
  declare cloned: number
  declare pkt_type: number
  declare ip_summed: number
  declare csum: number
  declare priority: number
  declare protocol: number
  declare local_df: number
  declare truesize: number
  declare acct: number
  /** A timeval: seconds, microseconds; 0 when it was not taken. */
  declare stamp: number
  declare nfmark: number
  declare nfct: number
  declare nfctinfo: number
  declare nfcache: number
  declare sp: number
  declare destructor: Sym<(skb: sk_buff) => void>
  /** 40 bytes for the layer that owns the packet now. */
  declare cb: number
}
/** Owner only, except `users`; a queued one belongs to its list's lock. */
export const SKB: Layout<sk_buff> = layout('sk_buff', sk_buff, {
  next: ptr(() => SKB),
  prev: ptr(() => SKB),
  list: ptr(() => SKB_HEAD),
  head: own(word), // address of the data block
  data: own(word), // first byte in use
  tail: own(word), // byte after the last one in use
  end: own(word), // skb_shared_info lies here
  len: own(word), // bytes of the packet, fragments included
  data_len: own(word), // bytes of it that lie in fragments
  mac_len: own(word),
  mac: own(word), // headers, by address
  nh: own(word),
  h: own(word),
  dev: ptr(() => NETDEV),
  input_dev: ptr(() => NETDEV),
  dst: ptr(() => DST),
  sk: own(word),
  users: atomic(word),
  cloned: own(word),
  pkt_type: own(word),
  ip_summed: own(word),
  csum: own(word),
  priority: own(word),
  protocol: own(word),
  local_df: own(word),
  truesize: own(word),
  acct: own(word), // how the packet's fate is counted: ACCT_*
  stamp: own(bytes(8)),
  nfmark: own(word),
  nfct: own(word), // address of the nf_conntrack that the packet holds a reference on
  nfctinfo: own(word), // how the packet stands to its connection
  nfcache: own(word),
  sp: own(word), // address of the sec_path, with a reference: the IPsec states that it has come through
  destructor: own(word),
  cb: own(bytes(40)),
})

// pkt_type
export const PACKET_HOST = 0
export const PACKET_BROADCAST = 1
export const PACKET_MULTICAST = 2
export const PACKET_OTHERHOST = 3
export const PACKET_OUTGOING = 4
export const PACKET_LOOPBACK = 5 // a copy of what was sent to everybody, for this machine itself
// ip_summed
export const CHECKSUM_NONE = 0
export const CHECKSUM_HW = 1
export const CHECKSUM_UNNECESSARY = 2
// acct: each packet that came out of a receive ring ends in exactly one counter (fate.ts)
export const ACCT_NONE = 0 // a copy, or a further fragment: not counted
export const ACCT_RX = 1 // stands for one received packet
export const ACCT_ICMP = 2 // an ICMP message of this machine
export const ACCT_LOCAL = 3 // a packet that a socket of this machine sends

export class sk_buff_head extends Struct {
  declare next: number
  declare prev: number
  declare qlen: number
  declare lock: spinlock_t
}
/** A list of packets: empty when next is its own address. */
export const SKB_HEAD: Layout<sk_buff_head> = layout('sk_buff_head', sk_buff_head, {
  next: by('lock', word),
  prev: by('lock', word),
  qlen: atomic(word), // changed under the lock, looked at without it
  lock: embed(SPINLOCK),
})

export class skb_shared_info extends Struct {
  declare dataref: number
  declare nr_frags: number
  declare tso_size: number
  declare tso_segs: number
  declare frag_list: sk_buff | null
  /** MAX_SKB_FRAGS of {page, offset, size}. */
  declare frags: number
}
export const SHINFO: Layout<skb_shared_info> = layout('skb_shared_info', skb_shared_info, {
  dataref: atomic(word),
  nr_frags: own(word),
  tso_size: own(word),
  tso_segs: own(word),
  frag_list: ptr(() => SKB),
  frags: own(bytes(MAX_SKB_FRAGS * 12)),
})

/** struct nf_conntrack: what a packet knows of its connection. */
export class nf_conntrack extends Struct {
  declare use: number
  declare destroy: Sym<(nfct: number) => void>
}
export const NF_CONNTRACK: Layout<nf_conntrack> = layout('nf_conntrack', nf_conntrack, {
  use: atomic(word),
  destroy: konst(word),
})

/** `int *`: how poll() gets and pays its budget. */
export class int_ref extends Struct {
  declare value: number
}
export const INT: Layout<int_ref> = layout('int', int_ref, { value: word })

// ---- devices --------------------------------------------------------------------------------------------------------

export class net_device extends Struct {
  declare name: number
  declare ifindex: number
  declare state: number
  declare flags: number
  declare mtu: number
  declare type: number
  declare hard_header_len: number
  declare features: number
  declare dev_addr_hi: number
  declare dev_addr_lo: number
  declare broadcast_hi: number
  declare broadcast_lo: number
  declare tx_queue_len: number
  declare weight: number
  declare priv: number
  declare ip_ptr: number
  declare irq: number
  declare reg_state: number
  declare next: net_device | null
  declare name_next: net_device | null
  declare index_next: net_device | null
  declare link_watch_next: net_device | null
  declare open: Sym<(dev: net_device) => number>
  /** Frees what open took; may sleep until the hardware lets go of it. */
  declare stop: Sym<(dev: net_device) => Generator<void, void, void>>
  declare hard_start_xmit: Sym<(skb: sk_buff, dev: net_device) => number>
  declare poll: Sym<(dev: net_device, budget: int_ref) => number>
  declare get_stats: Sym<(dev: net_device, stats: number) => void>
  declare tx_timeout: Sym<(dev: net_device) => void>
  declare set_mac_address: Sym<(dev: net_device, hi: number, lo: number) => number>
  declare set_multicast_list: Sym<(dev: net_device) => void>
  declare mc_list: number
  declare gflags: number
  declare promiscuity: number
  declare allmulti: number
  declare refcnt: number
  declare quota: number
  declare poll_list: list_head
  declare qdisc: Qdisc | null
  declare qdisc_sleeping: Qdisc | null
  declare next_sched: net_device | null
  declare queue_lock: spinlock_t
  declare xmit_lock: spinlock_t
  declare xmit_lock_owner: number
  declare trans_start: number
  declare watchdog_timeo: number
  declare watchdog_timer: timer_list
}
export const NETDEV: Layout<net_device> = layout(
  'net_device',
  net_device,
  {
    name: by('rtnl', bytes(16)), // zero-terminated; changed under dev_base_lock as well
    ifindex: konst(word),
    state: atomic(word), // __LINK_STATE_* bits
    flags: atomic(word), // IFF_*: changed under rtnl, looked at by packets without it
    mtu: by('rtnl', word),
    type: konst(word),
    hard_header_len: konst(word),
    features: konst(word),
    dev_addr_hi: by('rtnl', word), // first 4 bytes of the station address
    dev_addr_lo: by('rtnl', word), // last 2
    broadcast_hi: atomic(word), // everybody's address: changed under rtnl, looked at by packets without it
    broadcast_lo: atomic(word),
    tx_queue_len: by('rtnl', word),
    weight: konst(word), // of a backlog: its CPU's own, as the sysctl says
    priv: konst(word), // address of the driver's own struct
    ip_ptr: rcu(word), // address of the in_device
    irq: konst(word),
    reg_state: by('rtnl', word),
    next: ptr(() => NETDEV), // dev_base list, dev_base_lock
    name_next: ptr(() => NETDEV), // hash chains, dev_base_lock
    index_next: ptr(() => NETDEV),
    link_watch_next: ptr(() => NETDEV), // devices with news of their carrier, link_watch.lock
    open: konst(word),
    stop: konst(word),
    hard_start_xmit: konst(word),
    poll: konst(word),
    get_stats: konst(word),
    tx_timeout: konst(word),
    set_mac_address: konst(word),
    set_multicast_list: konst(word), // tells the hardware what IFF_PROMISC and IFF_ALLMULTI ask for
    mc_list: by('rtnl', word), // address of the first of its groups (dev_mcast.ts)
    gflags: by('rtnl', word), // IFF_PROMISC and IFF_ALLMULTI as programs have set them
    promiscuity: by('rtnl', word), // how many want to see all frames
    allmulti: by('rtnl', word),
    refcnt: { ...atomic(word), align: 128 },
    quota: own(word), // of the CPU whose poll_list holds it
    poll_list: embed(LIST),
    qdisc: { ...atomic(ptr(() => QDISC)), align: 128 }, // RCU for readers; queue_lock to change
    qdisc_sleeping: ptr(() => QDISC),
    next_sched: ptr(() => NETDEV),
    queue_lock: embed(SPINLOCK),
    xmit_lock: { ...embed(SPINLOCK), align: 128 },
    xmit_lock_owner: by('xmit_lock', word), // CPU number or -1
    trans_start: by('xmit_lock', word), // jiffies of the last transmission
    watchdog_timeo: konst(word), // jiffies; 0 means 5 s
    watchdog_timer: embed(TIMER),
  },
  { align: 128 },
)

// state bits
export const LINK_STATE_XOFF = 1 << 0
export const LINK_STATE_START = 1 << 1
export const LINK_STATE_PRESENT = 1 << 2
export const LINK_STATE_SCHED = 1 << 3
export const LINK_STATE_NOCARRIER = 1 << 4
export const LINK_STATE_RX_SCHED = 1 << 5
export const LINK_STATE_LINKWATCH_PENDING = 1 << 6
// flags
export const IFF_UP = 0x1
export const IFF_BROADCAST = 0x2
export const IFF_DEBUG = 0x4
export const IFF_LOOPBACK = 0x8
export const IFF_POINTOPOINT = 0x10
export const IFF_NOTRAILERS = 0x20
export const IFF_RUNNING = 0x40
export const IFF_NOARP = 0x80
export const IFF_PROMISC = 0x100
export const IFF_ALLMULTI = 0x200
export const IFF_MULTICAST = 0x1000
export const IFF_PORTSEL = 0x2000
export const IFF_AUTOMEDIA = 0x4000
export const IFF_DYNAMIC = 0x8000
// features
export const NETIF_F_SG = 1 // gathers a packet from pages
export const NETIF_F_IP_CSUM = 2 // fills in the checksum of TCP and UDP over IPv4 only
export const NETIF_F_NO_CSUM = 4 // needs none, as loopback
export const NETIF_F_HW_CSUM = 8 // fills in any
export const NETIF_F_HIGHDMA = 32 // reaches high memory, which this machine has none of
export const NETIF_F_FRAGLIST = 64 // gathers a packet from a list of packets
export const NETIF_F_TSO = 2048
export const NETIF_F_LLTX = 4096
// what hard_start_xmit returns
export const NETDEV_TX_OK = 0
export const NETDEV_TX_BUSY = 1
export const NETDEV_TX_LOCKED = -1
// reg_state
export const NETREG_UNINITIALIZED = 0
export const NETREG_REGISTERED = 2
export const NETREG_UNREGISTERING = 3 // off the list, but somebody still refers to it
export const NETREG_UNREGISTERED = 4

/** struct net_device_stats, as get_stats fills it: words. */
export const DEV_STATS = [
  'rx_packets',
  'rx_bytes',
  'rx_errors',
  'rx_dropped',
  'rx_missed_errors',
  'rx_over_errors',
  'tx_packets',
  'tx_bytes',
  'tx_errors',
  'tx_dropped',
] as const

export class Qdisc extends Struct {
  declare enqueue: Sym<(skb: sk_buff, q: Qdisc) => number>
  declare dequeue: Sym<(q: Qdisc) => sk_buff | null>
  declare requeue: Sym<(skb: sk_buff, q: Qdisc) => number>
  declare reset: Sym<(q: Qdisc) => void>
  declare dev: net_device | null
  declare qlen: number
  declare drops: number
  declare requeues: number
  declare packets: number
  declare bytes: number
  declare band0: sk_buff_head
  declare band1: sk_buff_head
  declare band2: sk_buff_head
}
export const QDISC: Layout<Qdisc> = layout('Qdisc', Qdisc, {
  enqueue: konst(word),
  dequeue: konst(word),
  requeue: konst(word),
  reset: konst(word),
  dev: konst(ptr(() => NETDEV)),
  qlen: by('dev.queue_lock', word),
  drops: by('dev.queue_lock', word),
  requeues: by('dev.queue_lock', word),
  packets: by('dev.queue_lock', word),
  bytes: by('dev.queue_lock', word),
  band0: by('dev.queue_lock', embed(SKB_HEAD)),
  band1: by('dev.queue_lock', embed(SKB_HEAD)),
  band2: by('dev.queue_lock', embed(SKB_HEAD)),
})
export const NET_XMIT_SUCCESS = 0
export const NET_XMIT_DROP = 1
export const NET_XMIT_CN = 2

// ---- destinations and neighbours ------------------------------------------------------------------------------------

// dst.flags
export const DST_NOXFRM = 2 // no policy of IPsec is asked on the way out
export const DST_NOPOLICY = 4 // and on the way in

export class dst_entry extends Struct {
  declare next: dst_entry | null
  declare refcnt: number
  declare use: number
  declare obsolete: number
  declare flags: number
  declare dev: net_device | null
  declare lastuse: number
  declare expires: number
  declare error: number
  declare mtu: number
  declare mtu_locked: number
  declare advmss: number
  declare hoplimit: number
  declare rate_last: number
  declare rate_tokens: number
  declare input: Sym<(skb: sk_buff) => number>
  declare output: Sym<(skb: sk_buff) => number>
  declare neighbour: neighbour | null
  declare ops: number
  declare xfrm: number
  declare child: dst_entry | null
  declare path: dst_entry | null
  declare header_len: number
  declare trailer_len: number
  declare rcu_head: rcu_head
}
/** The common head of every route: `rtable` begins with one. */
export const DST: Layout<dst_entry> = layout('dst_entry', dst_entry, {
  next: rcu(ptr(() => DST)), // hash chain
  refcnt: atomic(word),
  use: word,
  obsolete: atomic(word), // 0: it counts; 2: garbage. Whoever keeps one looks before each use
  flags: konst(word), // DST_*
  dev: atomic(ptr(() => NETDEV)), // of one that nobody can find any more: loopback, once the device is gone (dst_ifdown)
  lastuse: word, // jiffies
  expires: word, // jiffies; 0: never
  error: konst(word), // negative errno of a route that leads nowhere
  mtu: word,
  mtu_locked: word, // 1: path MTU discovery has found less than may be
  advmss: word,
  hoplimit: word, // TTL of packets of ours
  rate_last: word, // token bucket of ICMP errors: jiffies
  rate_tokens: word,
  input: atomic(word), // of one whose device is down: dst_discard
  output: atomic(word),
  neighbour: ptr(() => NEIGH),
  ops: konst(word),
  xfrm: konst(word), // address of the IPsec state that comes first, with a reference; 0: a route
  child: konst(ptr(() => DST)), // what comes next, and with it the route in the end
  path: konst(ptr(() => DST)), // the route of a bundle
  header_len: konst(word), // bytes that all its states put in front
  trailer_len: konst(word), // and behind, at most
  rcu_head: embed(RCU_HEAD),
})

export class neighbour extends Struct {
  declare next: neighbour | null
  declare primary_key: number
  declare dev: net_device | null
  declare nud_state: number
  declare refcnt: number
  declare ha: number
  declare parms: number
  declare dead: number
  declare used: number
  declare confirmed: number
  declare updated: number
  declare probes: number
  declare lock: rwlock_t
  declare arp_queue: sk_buff_head
  declare timer: timer_list
}
export const NEIGH: Layout<neighbour> = layout('neighbour', neighbour, {
  next: by(
    'tbl.lock',
    ptr(() => NEIGH),
  ),
  primary_key: konst(word), // IPv4 address
  dev: atomic(ptr(() => NETDEV)), // constant while the table has it, then as that of a destination
  nud_state: atomic(word), // changed under lock, looked at without it
  refcnt: atomic(word),
  ha: rcu(word), // address of the neigh_ha, 0 before the first; changed under lock
  parms: konst(word), // address of its device's neigh_parms, with a reference
  dead: atomic(word), // it left the table
  used: atomic(word), // jiffies: when somebody last had to ask whether it may be sent to
  confirmed: atomic(word), // when it was last known to be there
  updated: atomic(word),
  probes: atomic(word), // questions since it was last known to be there
  lock: embed(RWLOCK),
  arp_queue: by('lock', embed(SKB_HEAD)), // what waits for the answer
  timer: embed(TIMER), // pending: it holds a reference
})
export const NUD_NONE = 0x00
export const NUD_INCOMPLETE = 0x01
export const NUD_REACHABLE = 0x02
export const NUD_STALE = 0x04
export const NUD_DELAY = 0x08
export const NUD_PROBE = 0x10
export const NUD_FAILED = 0x20
export const NUD_NOARP = 0x40
export const NUD_PERMANENT = 0x80
