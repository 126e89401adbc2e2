/**
 * xfrm4_tunnel.ts - packets in packets, and nothing else (RFC 2003; net/ipv4/xfrm4_tunnel.c of 2.6.11): the states of what IPComp
 * could not make smaller. A module. There are no tunnel devices that would ask first.
 */
import { symbol } from '../../abi/symbol.js'
import { EAGAIN, EINVAL } from '../../lib/errno.js'
import { synchronize_kernel } from '../../rcu/rcupdate.js'
import { define_module } from '../../sched/module.js'
import type { sk_buff } from '../core/types.js'
import { IP_HLEN, IPPROTO_IPIP, set_ip_tot_len } from '../wire/ipv4.js'
import { XFRM_MODE_TUNNEL, type xfrm_state, type xfrm_type } from '../xfrm/types.js'
import { xfrm_register_type, xfrm_unregister_type } from '../xfrm/xfrm_km.js'
import { inet_add_protocol, inet_del_protocol } from './ip_input.js'
import { ip_send_check } from './ip_output.js'
import { xfrm4_rcv_sym } from './xfrm4_input.js'

function* init_state(x: xfrm_state): Generator<void, number, void> {
  if (x.mode !== XFRM_MODE_TUNNEL) return -EINVAL
  x.header_len = IP_HLEN
  return 0
}
/** The header of the tunnel is there. */
function output(_x: xfrm_state, skb: sk_buff): number {
  set_ip_tot_len(skb.nh, skb.len)
  ip_send_check(skb.nh)
  return 0
}
/** xfrm4_rcv takes it off. */
function input(): number {
  return IPPROTO_IPIP
}
function max_size(x: xfrm_state, mtu: number): number {
  return mtu - x.header_len
}

const ipip_type: xfrm_type = { proto: IPPROTO_IPIP, init_state, input, output, max_size }
const ipip_type_sym = symbol('ipip_type', ipip_type)

const mod = define_module('xfrm4_tunnel', {
  alias: 'xfrm-type-2-4',
  *init() {
    if (!xfrm_register_type(IPPROTO_IPIP, ipip_type_sym, mod.addr)) return -EAGAIN
    inet_add_protocol(IPPROTO_IPIP, xfrm4_rcv_sym, { no_policy: true })
    return 0
  },
  *exit() {
    inet_del_protocol(IPPROTO_IPIP)
    xfrm_unregister_type(IPPROTO_IPIP)
    yield* synchronize_kernel()
  },
})
