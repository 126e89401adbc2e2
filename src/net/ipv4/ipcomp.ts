/** ipcomp.ts - the IP payload compression protocol (RFC 3173; net/ipv4/ipcomp.c of 2.6.11). A module. */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EINVAL, ENOMEM } from '../../lib/errno.js'
import { synchronize_kernel } from '../../rcu/rcupdate.js'
import { define_module } from '../../sched/module.js'
import { __skb_pull, pskb_expand_head, pskb_trim, skb_put, skb_tailroom } from '../core/skbuff.js'
import type { sk_buff } from '../core/types.js'
import { ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, icmp_code, icmp_type } from '../wire/icmp.js'
import {
  IP_HLEN,
  IPPROTO_COMP,
  IPPROTO_IPIP,
  ip_daddr,
  ip_hdrlen,
  ip_protocol,
  set_ip_protocol,
  set_ip_tot_len,
} from '../wire/ipv4.js'
import { deflate_compress, deflate_decompress } from '../xfrm/deflate.js'
import { SELECTOR, XFRM_MODE_TUNNEL, type xfrm_state, type xfrm_type } from '../xfrm/types.js'
import { calg_of } from '../xfrm/xfrm_algo.js'
import { xfrm_init_state, xfrm_register_type, xfrm_unregister_type } from '../xfrm/xfrm_km.js'
import { xfrm_state_alloc, xfrm_state_lookup, xfrm_state_put } from '../xfrm/xfrm_state.js'
import { xfrm_tunnel_attach } from '../xfrm/xfrm_tunnel.js'
import { bytes_of } from './esp4.js'
import { inet_add_protocol, inet_del_protocol } from './ip_input.js'
import { ip_send_check } from './ip_output.js'
import { xfrm4_rcv_sym } from './xfrm4_input.js'

const u8 = RAM.u8
const dv = RAM.dv
/** Next header, flags, CPI. */
const IPCOMP_HLEN = 4
/** Bytes that a packet can have inside: with the largest IP header they are still a packet. */
const IPCOMP_SCRATCH_SIZE = 65400

// ---- the tunnel of what is not compressed ---------------------------------------------------------------------------

/** ipcomp_tunnel_create - with the addresses of x, and for what x is for. @returns a state with one reference, or null */
function* tunnel_create(x: xfrm_state): Generator<void, xfrm_state | null, void> {
  const t = xfrm_state_alloc()
  if (t === null) return null
  Object.assign(t, { proto: IPPROTO_IPIP, spi: x.saddr, daddr: x.daddr, saddr: x.saddr })
  Object.assign(t, { mode: XFRM_MODE_TUNNEL, flags: x.flags })
  u8.copyWithin(t.sel.addr, x.sel.addr, x.sel.addr + SELECTOR.size)
  if ((yield* xfrm_init_state(t)) === 0) return t
  xfrm_state_put(t)
  return null
}
/** ipcomp_tunnel_attach - @returns 0, -EINVAL */
function* tunnel_attach(x: xfrm_state): Generator<void, number, void> {
  if (xfrm_tunnel_attach(x, null)) return 0
  const t = yield* tunnel_create(x)
  if (t === null) return -EINVAL
  xfrm_tunnel_attach(x, t)
  xfrm_state_put(t)
  return 0
}

function* init_state(x: xfrm_state): Generator<void, number, void> {
  if (x.calg === 0) return -EINVAL
  if (x.mode !== XFRM_MODE_TUNNEL) return 0
  x.header_len = IP_HLEN
  return yield* tunnel_attach(x)
}
function max_size(x: xfrm_state, mtu: number): number {
  return mtu - x.header_len // a packet that would grow stays as it is
}

// ---- packets --------------------------------------------------------------------------------------------------------

/** ipcomp_output - what is short, or would not become shorter, goes as it is: of a tunnel, as a packet in a packet. */
function output(x: xfrm_state, skb: sk_buff): number {
  const iph = skb.nh
  const hlen = ip_hdrlen(iph)
  const plen = skb.len - hlen
  if (plen >= calg_of(x.calg).threshold) {
    const start = iph + hlen
    const text = deflate_compress(bytes_of(start, plen))
    if (text.length + IPCOMP_HLEN < plen) {
      u8[start] = ip_protocol(iph)
      u8[start + 1] = 0
      dv.setUint16(start + 2, x.spi & 0xffff)
      u8.set(text, start + IPCOMP_HLEN)
      pskb_trim(skb, hlen + IPCOMP_HLEN + text.length)
      skb.h = start
      set_ip_protocol(iph, IPPROTO_COMP)
    }
  }
  set_ip_tot_len(iph, skb.len)
  ip_send_check(iph)
  return 0
}

/** ipcomp_input - @returns what is inside, -EINVAL, -ENOMEM */
function input(_x: xfrm_state, skb: sk_buff): number {
  const inner = u8[skb.data]!
  const hlen = ip_hdrlen(skb.nh)
  const from = skb.nh
  skb.h = __skb_pull(skb, IPCOMP_HLEN)
  skb.nh = skb.h - hlen
  u8.copyWithin(skb.nh, from, from + hlen)
  const plen = skb.len
  const plain = deflate_decompress(bytes_of(skb.data, plen), IPCOMP_SCRATCH_SIZE)
  // Nobody compresses what does not become shorter.
  if (plain === null || plain.length < plen + IPCOMP_HLEN) return -EINVAL
  const more = plain.length - plen
  if (skb_tailroom(skb) < more && pskb_expand_head(skb, 0, more) !== 0) return -ENOMEM
  skb_put(skb, more)
  u8.set(plain, skb.data)
  set_ip_protocol(skb.nh, inner)
  set_ip_tot_len(skb.nh, skb.len + hlen)
  ip_send_check(skb.nh)
  return inner
}

/** ipcomp4_err - @returns false: no state sends packets that are too big there; 2.6.11 does not count that */
function err(skb: sk_buff): boolean {
  if (icmp_type(skb.h) !== ICMP_DEST_UNREACH || icmp_code(skb.h) !== ICMP_FRAG_NEEDED) return true
  const iph = skb.data
  const x = xfrm_state_lookup(ip_daddr(iph), dv.getUint16(iph + ip_hdrlen(iph) + 2), IPPROTO_COMP)
  if (x === null) return false
  xfrm_state_put(x)
  return true
}
const ipcomp4_err_sym = symbol('ipcomp4_err', err)

const ipcomp_type: xfrm_type = { proto: IPPROTO_COMP, init_state, input, output, max_size }
const ipcomp_type_sym = symbol('ipcomp_type', ipcomp_type)

const mod = define_module('ipcomp', {
  alias: 'xfrm-type-2-108',
  *init() {
    if (!xfrm_register_type(IPPROTO_COMP, ipcomp_type_sym, mod.addr)) return -EINVAL
    inet_add_protocol(IPPROTO_COMP, xfrm4_rcv_sym, { err_handler: ipcomp4_err_sym, no_policy: true })
    return 0
  },
  *exit() {
    inet_del_protocol(IPPROTO_COMP)
    xfrm_unregister_type(IPPROTO_COMP)
    yield* synchronize_kernel()
  },
})
