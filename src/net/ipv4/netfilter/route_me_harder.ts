/** route_me_harder.ts - a packet of this machine whose addresses or mark a hook has changed finds its way anew. */
import { EINVAL } from '../../../lib/errno.js'
import { dst_release } from '../../core/dst.js'
import type { sk_buff } from '../../core/types.js'
import { ip_daddr, ip_saddr, ip_tos } from '../../wire/ipv4.js'
import { inet_addr_type } from '../fib_frontend.js'
import { RTN_LOCAL } from '../fib_types.js'
import { ip_route_output_key } from '../route_output.js'
import { RTABLE } from '../types.js'

/** ip_route_me_harder - @context process, softirq @returns 0, or -EINVAL: there is no way */
export function ip_route_me_harder(skb: sk_buff): number {
  const iph = skb.nh
  const saddr = inet_addr_type(ip_saddr(iph)) === RTN_LOCAL ? ip_saddr(iph) : 0
  const r = ip_route_output_key(ip_daddr(iph), saddr, ip_tos(iph) & 0x1e, 0, skb.nfmark)
  if (r < 0) return -EINVAL
  const old = skb.dst
  skb.dst = RTABLE.ref(r).dst
  if (old !== null) dst_release(old)
  return 0
}
