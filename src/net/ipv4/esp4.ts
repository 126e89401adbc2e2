/** esp4.ts - the encapsulating security payload (RFC 2406; net/ipv4/esp4.c of 2.6.11, without NAT traversal). A module. */
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EINVAL, ENOMEM } from '../../lib/errno.js'
import { synchronize_kernel } from '../../rcu/rcupdate.js'
import { define_module } from '../../sched/module.js'
import { __skb_pull, pskb_expand_head, pskb_trim, skb_push, skb_put, skb_tailroom } from '../core/skbuff.js'
import type { sk_buff } from '../core/types.js'
import { IPPROTO_ESP, ip_hdrlen, ip_protocol, set_ip_protocol, set_ip_tot_len } from '../wire/ipv4.js'
import { aes_cbc_decrypt, aes_cbc_encrypt, hmac_digest } from '../xfrm/crypto.js'
import { XFRM_MODE_TUNNEL, type xfrm_state, type xfrm_type } from '../xfrm/types.js'
import { aalg_of, ealg_of } from '../xfrm/xfrm_algo.js'
import { xfrm_register_type, xfrm_unregister_type } from '../xfrm/xfrm_km.js'
import { xfrm_random } from '../xfrm/xfrm_state.js'
import { inet_add_protocol, inet_del_protocol } from './ip_input.js'
import { ip_send_check } from './ip_output.js'
import { BAD_DIGEST, xfrm4_rcv_sym } from './xfrm4_input.js'

const u8 = RAM.u8
const dv = RAM.dv
const ESP_HLEN = 8

/** bytes_of - a copy that nobody shares. */
export function bytes_of(addr: number, len: number): Uint8Array {
  return u8.slice(addr, addr + len)
}
/** xfrm_icv - the digest of some bytes, as much of it as packets carry. */
export function xfrm_icv(x: xfrm_state, data: Uint8Array): Uint8Array {
  const { hash, trunc } = aalg_of(x.aalg)
  return hmac_digest(hash, bytes_of(x.akey, x.aalg_bits >> 3), data).subarray(0, trunc)
}
/** Length of what is equal does not matter: packets come over a wire that everybody can time. */
export function equal_at(addr: number, icv: Uint8Array): boolean {
  let differ = 0
  for (let k = 0; k < icv.length; k++) differ |= u8[addr + k]! ^ icv[k]!
  return differ === 0
}
const trunc_of = (x: xfrm_state): number => (x.aalg === 0 ? 0 : aalg_of(x.aalg).trunc)
/** What the ciphertext is a multiple of. */
const block_of = (x: xfrm_state): number => Math.max(4, ealg_of(x.ealg).block)

function* init_state(x: xfrm_state): Generator<void, number, void> {
  if (x.ealg === 0) return -EINVAL
  const { iv } = ealg_of(x.ealg)
  x.header_len = ESP_HLEN + iv + (x.mode === XFRM_MODE_TUNNEL ? 20 : 0)
  x.trailer_len = block_of(x) + 1 + trunc_of(x)
  if (iv > 0) xfrm_random(x.ivec, iv)
  return 0
}

function max_size(x: xfrm_state, mtu: number): number {
  const around = 20 + ESP_HLEN + ealg_of(x.ealg).iv + trunc_of(x)
  const payload = ((mtu - around) & ~(block_of(x) - 1)) - 2
  return x.mode === XFRM_MODE_TUNNEL ? payload : payload + 20
}

function crypt(x: xfrm_state, way: typeof aes_cbc_encrypt, iv: number, at: number, len: number): void {
  const bytes = way(bytes_of(x.ekey, x.ealg_bits >> 3), bytes_of(iv, 16), bytes_of(at, len))
  u8.set(bytes, at)
}

/** esp_output - header, payload, padding that counts 1, 2, 3, its length, what is inside, digest. */
function output(x: xfrm_state, skb: sk_buff): number {
  const { iv } = ealg_of(x.ealg)
  const hlen = ip_hdrlen(skb.nh)
  const inner = ip_protocol(skb.nh)
  const block = block_of(x)
  const payload = skb.len - hlen
  const clen = (payload + 2 + block - 1) & ~(block - 1)
  const trunc = trunc_of(x)
  const more = clen - payload + trunc
  if (skb_tailroom(skb) < more && pskb_expand_head(skb, 0, more) !== 0) return -ENOMEM
  const pad = clen - payload - 2
  const tail = skb_put(skb, more)
  for (let k = 0; k < pad; k++) u8[tail + k] = k + 1
  u8[tail + pad] = pad
  u8[tail + pad + 1] = inner
  const from = skb.nh
  skb.nh = skb_push(skb, ESP_HLEN + iv)
  u8.copyWithin(skb.nh, from, from + hlen)
  const esph = skb.nh + hlen
  skb.h = esph
  dv.setInt32(esph, x.spi)
  x.replay_oseq = (x.replay_oseq + 1) | 0
  dv.setInt32(esph + 4, x.replay_oseq)
  const text = esph + ESP_HLEN + iv
  if (iv > 0) {
    u8.copyWithin(esph + ESP_HLEN, x.ivec, x.ivec + iv)
    crypt(x, aes_cbc_encrypt, x.ivec, text, clen)
    u8.copyWithin(x.ivec, text + clen - iv, text + clen) // the next packet's, as 2.6.11 has it
  }
  if (trunc > 0) u8.set(xfrm_icv(x, bytes_of(esph, ESP_HLEN + iv + clen)), text + clen)
  set_ip_protocol(skb.nh, IPPROTO_ESP)
  set_ip_tot_len(skb.nh, skb.len)
  ip_send_check(skb.nh)
  return 0
}

/** esp_input - @returns what is inside, -EINVAL, BAD_DIGEST */
function input(x: xfrm_state, skb: sk_buff): number {
  const { iv } = ealg_of(x.ealg)
  const trunc = trunc_of(x)
  const clen = skb.len - ESP_HLEN - iv - trunc
  if (clen <= 0 || (clen & (block_of(x) - 1)) !== 0) return -EINVAL
  const esph = skb.data
  const text = esph + ESP_HLEN + iv
  if (trunc > 0 && !equal_at(text + clen, xfrm_icv(x, bytes_of(esph, ESP_HLEN + iv + clen)))) {
    x.stat_integrity_failed++
    return BAD_DIGEST
  }
  if (iv > 0) crypt(x, aes_cbc_decrypt, esph + ESP_HLEN, text, clen)
  const pad = u8[text + clen - 2]!
  const inner = u8[text + clen - 1]!
  if (pad + 2 >= clen) return -EINVAL
  pskb_trim(skb, skb.len - trunc - pad - 2)
  const hlen = ip_hdrlen(skb.nh)
  const from = skb.nh
  skb.h = __skb_pull(skb, ESP_HLEN + iv)
  skb.nh = skb.h - hlen
  u8.copyWithin(skb.nh, from, from + hlen)
  set_ip_protocol(skb.nh, inner)
  set_ip_tot_len(skb.nh, skb.len + hlen)
  ip_send_check(skb.nh)
  return inner === 0 ? -EINVAL : inner
}

const esp_type: xfrm_type = { proto: IPPROTO_ESP, init_state, input, output, max_size }
const esp_type_sym = symbol('esp_type', esp_type)

const mod = define_module('esp4', {
  alias: 'xfrm-type-2-50',
  *init() {
    if (!xfrm_register_type(IPPROTO_ESP, esp_type_sym, mod.addr)) return -EINVAL
    inet_add_protocol(IPPROTO_ESP, xfrm4_rcv_sym, { no_policy: true })
    return 0
  },
  *exit() {
    inet_del_protocol(IPPROTO_ESP)
    xfrm_unregister_type(IPPROTO_ESP)
    yield* synchronize_kernel()
  },
})
