/**
 * fate.ts - where every received packet ended: the books that make "packets are conserved" a check.
 *
 * A packet that came out of a receive ring (ACCT_RX) is counted in `received` and later in exactly one of `forwarded`
 * (its frame, or its first fragment, was sent), `delivered` or one drop reason. What a socket sends (ACCT_LOCAL) is counted in
 * `local_made` and later in `local_sent` or `local_dropped`; over loopback it comes in as a received packet then. What it spawns (copies, further
 * fragments, ICMP errors) is counted apart. Counters are per CPU and plain; the sum is exact when the machine rests.
 */
import { bytes, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU } from '../../abi/section.js'
import { RAM } from '../../arch/ram.js'
import { trace_drop } from '../../arch/trace.js'
import { ACCT_ICMP, ACCT_LOCAL, ACCT_RX } from './types.js'

const i32 = RAM.i32

/** Reasons, by number. `place_reason`, for reports. */
export const DROP_REASONS = [
  'not_specified',
  'rx_no_memory', // no sk_buff or buffer to refill the ring
  'ipintrq_full', // the bounded IP input queue of the interrupt architecture
  'backlog_full', // netif_rx: over netdev_max_backlog, or throttled
  'eth_runt', // shorter than its Ethernet header
  'eth_other_host', // another station's address
  'eth_unknown_protocol',
  'ip_truncated',
  'ip_version',
  'ip_header_length',
  'ip_checksum',
  'ip_total_length',
  'ip_options',
  'ip_source_route',
  'ip_martian_source',
  'ip_martian_destination',
  'ip_no_route',
  'ip_unreachable', // an unreachable, prohibit or blackhole route
  'ip_ttl_exceeded',
  'ip_fragmentation_needed',
  'ip_fragment_failed',
  'ip_unknown_protocol',
  'ip_not_reassembled', // a fragment for this machine that does not fit its datagram; one that does is delivered, to reassembly
  'ip_input_error',
  'ip_not_forwarding',
  'icmp_malformed',
  'icmp_ignored',
  'igmp_malformed',
  'udp_malformed',
  'udp_checksum',
  'udp_no_port',
  'socket_full', // the receive buffer of the socket it is for
  'socket_filter', // the filter of the socket it is for
  'route_cache_full',
  'neigh_unresolved', // nobody answers for the address of the next stop
  'neigh_queue_full', // waited for such an answer when newer packets came
  'arp_malformed',
  'arp_ignored', // not a question or an answer for this machine
  'screen_queue_full', // waits for a screening process that does not keep up
  'qdisc_full',
  'dev_down',
  'dev_queue_dead',
  'tx_error',
  'netfilter',
  'xfrm_policy', // it came, or would go, by a way that no IPsec policy allows
  'xfrm_no_state', // no state has the SPI
  'xfrm_state_invalid', // the state has ended or has used up its limit
  'xfrm_replay', // seen before, or too old to tell
  'xfrm_integrity', // wrong digest
  'xfrm_malformed', // lengths, padding, options, what does not decompress
  'xfrm_mode', // no packet in a tunnel
  'xfrm_output', // its states do not take it
  'no_memory',
  'shutdown', // purged when a device went down
] as const
export type DropReason = (typeof DROP_REASONS)[number]

/** drop_reason - number of a reason; at module load. */
export function drop_reason(name: DropReason): number {
  return DROP_REASONS.indexOf(name)
}

class packet_fate extends Struct {
  declare received: number
  declare forwarded: number
  declare delivered: number
  declare icmp_sent: number
  declare icmp_dropped: number
  declare local_made: number
  declare local_sent: number
  declare local_dropped: number
  declare copies_dropped: number
  declare dropped: number
  declare drops: number
}
export const FATE: Layout<packet_fate> = layout('packet_fate', packet_fate, {
  received: own(word),
  forwarded: own(word),
  delivered: own(word),
  icmp_sent: own(word),
  icmp_dropped: own(word),
  local_made: own(word), // packets of sockets, = sent + dropped + still queued
  local_sent: own(word),
  local_dropped: own(word),
  copies_dropped: own(word), // drops of packets that are not counted themselves
  dropped: own(word), // sum of `drops`, for those that watch it from outside
  drops: own(bytes(64 * 4)), // by reason
})
export const packet_fates = DEFINE_PER_CPU('packet_fate', FATE)
const MINE = packet_fates.mine
const DROPS = MINE.drops >> 2

/** fate_received - a packet came out of a receive ring; its skb carries ACCT_RX from here on. */
export function fate_received(): void {
  MINE.received++
}

/** fate_made - a socket made a packet; its skb carries ACCT_LOCAL from here on. */
export function fate_made(): void {
  MINE.local_made++
}

/** fate_sent - the device has sent the frame. */
export function fate_sent(acct: number): void {
  if (acct === ACCT_RX) MINE.forwarded++
  else if (acct === ACCT_ICMP) MINE.icmp_sent++
  else if (acct === ACCT_LOCAL) MINE.local_sent++
}

/** fate_delivered - a local handler took the packet. */
export function fate_delivered(acct: number): void {
  if (acct === ACCT_RX) MINE.delivered++
}

/** fate_dropped - the packet is freed for this reason. */
export function fate_dropped(acct: number, reason: number): void {
  if (acct === ACCT_RX) {
    i32[DROPS + reason]++
    MINE.dropped++
  } else if (acct === ACCT_ICMP) MINE.icmp_dropped++
  else if (acct === ACCT_LOCAL) MINE.local_dropped++
  else MINE.copies_dropped++
  trace_drop(reason)
}
