/** nf_checksum.ts - is what the tracker is about to learn from worth believing? No locks of its own. */
import { csum_fold, csum_tcpudp_magic } from '../../../lib/checksum.js'
import { skb_checksum } from '../../core/datagram.js'
import { NF_IP_PRE_ROUTING } from '../../core/netfilter.js'
import { CHECKSUM_UNNECESSARY, type sk_buff } from '../../core/types.js'
import { IPPROTO_ICMP, ip_daddr, ip_hdrlen, ip_protocol, ip_saddr } from '../../wire/ipv4.js'

/**
 * nf_checksum_wrong - of all behind the IP header, on the way in: what goes out may have no sum yet, and root may send anything.
 * @context softirq, process
 */
export function nf_checksum_wrong(skb: sk_buff, hook: number): boolean {
  if (hook !== NF_IP_PRE_ROUTING || skb.ip_summed === CHECKSUM_UNNECESSARY) return false
  const iph = skb.nh
  const hlen = ip_hdrlen(iph)
  const len = skb.len - hlen
  const sum = skb_checksum(skb, hlen, len, 0)
  const proto = ip_protocol(iph)
  return (
    (proto === IPPROTO_ICMP ? csum_fold(sum) : csum_tcpudp_magic(ip_saddr(iph), ip_daddr(iph), len, proto, sum)) !== 0
  )
}
