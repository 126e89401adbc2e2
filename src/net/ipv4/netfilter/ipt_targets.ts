/** ipt_targets.ts - targets that change a packet or write about it, and let it go on: MARK, TOS, TTL, LOG. No locks of their own. */
import { RAM } from '../../../arch/ram.js'
import { csum_replace2 } from '../../../lib/checksum.js'
import { IPT_CONTINUE, words_text } from '../../../lib/iptables.js'
import { printk } from '../../../sched/printk.js'
import { dev_name } from '../../core/netdevice.js'
import { NF_DROP } from '../../core/netfilter.js'
import { skb_cow } from '../../core/skbuff.js'
import type { net_device, sk_buff } from '../../core/types.js'
import {
  IP_DF,
  IP_MF,
  IP_OFFSET,
  IP_RF,
  IPPROTO_ICMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ip_check,
  ip_daddr,
  ip_frag_off,
  ip_hdrlen,
  ip_id,
  ip_ntoa,
  ip_protocol,
  ip_saddr,
  ip_tos,
  ip_tot_len,
  ip_ttl,
  set_ip_check,
  set_ip_tos,
  set_ip_ttl,
} from '../../wire/ipv4.js'
import { define_target } from './ip_tables.js'
import { protocol_name, transport } from './ipt_matches.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

/** skb_ip_make_writable - the bytes of the headers are this packet's own. @returns false: no memory */
export function skb_ip_make_writable(skb: sk_buff): boolean {
  return skb_cow(skb, 0) === 0
}
/** set_tos - the byte and the header's checksum. @returns IPT_CONTINUE, NF_DROP: no memory */
export function set_tos(skb: sk_buff, to: number): number {
  const from = ip_tos(skb.nh)
  if (from === to) return IPT_CONTINUE
  if (!skb_ip_make_writable(skb)) return NF_DROP
  set_ip_check(skb.nh, csum_replace2(ip_check(skb.nh), 0x4500 | from, 0x4500 | to))
  set_ip_tos(skb.nh, to)
  return IPT_CONTINUE
}
export const in_mangle = (table: string): boolean => table === 'mangle'

/** MARK: mark. */
define_target(
  'MARK',
  1,
  (skb, _in, _out, _hook, info) => {
    skb.nfmark = i32[info >> 2]
    return IPT_CONTINUE
  },
  in_mangle,
)
extension_module('MARK', ['target'])

/** TOS: tos, one of those that RFC 1349 has. */
define_target(
  'TOS',
  1,
  (skb, _in, _out, _hook, info) => set_tos(skb, (ip_tos(skb.nh) & 0xe1) | (i32[info >> 2] & 0x1e)),
  (table, _e, info) => in_mangle(table) && [0, 2, 4, 8, 16].includes(i32[info >> 2]),
)
extension_module('TOS', ['target'])
extension_module('tos', ['match'])

/** TTL: mode | ttl << 8; the modes are set, more, less. */
define_target(
  'TTL',
  1,
  (skb, _in, _out, _hook, info) => {
    const n = (i32[info >> 2] >> 8) & 255
    const mode = i32[info >> 2] & 255
    if (!skb_ip_make_writable(skb)) return NF_DROP
    const from = ip_ttl(skb.nh)
    const to = mode === 0 ? n : mode === 1 ? Math.min(255, from + n) : Math.max(0, from - n)
    if (from === to) return IPT_CONTINUE
    set_ip_check(skb.nh, csum_replace2(ip_check(skb.nh), from << 8, to << 8))
    set_ip_ttl(skb.nh, to)
    return IPT_CONTINUE
  },
  (table, _e, info) =>
    in_mangle(table) && (i32[info >> 2] & 255) < 3 && (i32[info >> 2] & 255 ? i32[info >> 2] >> 8 !== 0 : true),
)
extension_module('TTL', ['target'])
extension_module('ttl', ['match'])

// ---- LOG: level | flags << 8, then 32 bytes of prefix -----------------------------------------------------------------

const hex = (n: number, digits = 2): string => n.toString(16).padStart(digits, '0')

function dump_transport(skb: sk_buff): string {
  const iph = skb.nh
  const left = skb.len - ip_hdrlen(iph)
  const name = `PROTO=${protocol_name(iph)} `
  if ((ip_frag_off(iph) & IP_OFFSET) !== 0) return name
  const proto = ip_protocol(iph)
  const need = proto === IPPROTO_TCP ? 20 : proto === IPPROTO_UDP ? 8 : proto === IPPROTO_ICMP ? 8 : 0
  if (need === 0) return name
  const h = transport(skb, need)
  if (h === 0) return `${name}INCOMPLETE [${left} bytes] `
  if (proto === IPPROTO_ICMP) {
    const echo = u8[h] === 0 || u8[h] === 8
    return `${name}TYPE=${u8[h]} CODE=${u8[h + 1]} ${echo ? `ID=${dv.getUint16(h + 4)} SEQ=${dv.getUint16(h + 6)} ` : ''}`
  }
  const ports = `${name}SPT=${dv.getUint16(h)} DPT=${dv.getUint16(h + 2)} `
  if (proto === IPPROTO_UDP) return `${ports}LEN=${dv.getUint16(h + 4)} `
  const flags = ['CWR', 'ECE', 'URG', 'ACK', 'PSH', 'RST', 'SYN', 'FIN'].filter((_, k) => u8[h + 13] & (128 >> k))
  return `${ports}WINDOW=${dv.getUint16(h + 14)} RES=0x${hex((u8[h + 12] & 15) << 2)} ${flags.map(f => `${f} `).join('')}URGP=${dv.getUint16(h + 18)} `
}

function dump_packet(skb: sk_buff): string {
  const iph = skb.nh
  const off = ip_frag_off(iph)
  const flags = [off & IP_RF ? 'CE ' : '', off & IP_DF ? 'DF ' : '', off & IP_MF ? 'MF ' : ''].join('')
  const frag = (off & IP_OFFSET) !== 0 ? `FRAG:${off & IP_OFFSET} ` : ''
  return (
    `SRC=${ip_ntoa(ip_saddr(iph))} DST=${ip_ntoa(ip_daddr(iph))} LEN=${ip_tot_len(iph)} TOS=0x${hex(ip_tos(iph) & 0x1e)} ` +
    `PREC=0x${hex(ip_tos(iph) & 0xe0)} TTL=${ip_ttl(iph)} ID=${ip_id(iph)} ${flags}${frag}${dump_transport(skb)}`
  )
}

function log_target(
  skb: sk_buff,
  indev: net_device | null,
  outdev: net_device | null,
  _hook: number,
  info: number,
): number {
  const w = info >> 2
  const prefix = words_text(i32.subarray(w + 1, w + 9))
  const at = skb.mac
  const has_mac = indev !== null && outdev === null && at >= skb.head && at !== 0 && at + 14 <= skb.data
  const mac = has_mac
    ? `MAC=${Array.from(u8.slice(at, at + 14), b => hex(b)).join(':')} `
    : indev !== null && outdev === null
      ? 'MAC= '
      : ''
  const devices = `IN=${indev === null ? '' : dev_name(indev)} OUT=${outdev === null ? '' : dev_name(outdev)} `
  printk(i32[w] & 7, `${prefix}${devices}${mac}${dump_packet(skb)}`)
  return IPT_CONTINUE
}
define_target('LOG', 9, log_target, (_t, _e, info) => (i32[info >> 2] & 255) < 8)
extension_module('LOG', ['target'])
