/** ipt_header_matches.ts - matches of single fields: dscp, ecn, ah, esp, tcpmss. No locks: they run under their table's. */
import { RAM } from '../../../arch/ram.js'
import type { sk_buff } from '../../core/types.js'
import { IPPROTO_AH, IPPROTO_ESP, IPPROTO_TCP, ip_protocol, ip_tos } from '../../wire/ipv4.js'
import { define_match, HOTDROP, type ipt_match_fn, NO, YES } from './ip_tables.js'
import { between, says, tcp_option, transport, wants } from './ipt_matches.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

/** dscp: code point | invert << 8. */
define_match(
  'dscp',
  1,
  (skb, _in, _out, info) => {
    const word = i32[info >> 2]
    return says((ip_tos(skb.nh) >> 2 === (word & 255)) !== (word >> 8 !== 0))
  },
  (_t, _e, info) => (i32[info >> 2] & 255) < 64,
)
extension_module('dscp', ['match'])

// ---- ecn: operation | invert << 8 | ECN field << 16 --------------------------------------------------------------------

/** Of both the match and the target: what is looked at, or changed. */
export const ECN_OP_IP = 0x01
export const ECN_OP_ECE = 0x10
export const ECN_OP_CWR = 0x20
export const ECN_OP_ALL = ECN_OP_IP | ECN_OP_ECE | ECN_OP_CWR
/** Flags of TCP. */
export const TH_ECE = 0x40
export const TH_CWR = 0x80

function ecn_match(skb: sk_buff, _in: unknown, _out: unknown, info: number, offset: number): number {
  const word = i32[info >> 2]
  const inv = word >> 8
  // The original never looks whether this one is inverted.
  if ((word & ECN_OP_IP) !== 0 && ((ip_tos(skb.nh) & 3) === word >>> 16) === ((inv & ECN_OP_IP) !== 0)) return NO
  if ((word & (ECN_OP_ECE | ECN_OP_CWR)) === 0) return YES
  if (ip_protocol(skb.nh) !== IPPROTO_TCP || offset !== 0) return NO
  const th = transport(skb, 20)
  if (th === 0) return NO // left to the match tcp, as in the original
  const flags = u8[th + 13]
  const differs = (op: number, flag: number): boolean =>
    (word & op) !== 0 && ((flags & flag) !== 0) === ((inv & op) !== 0)
  return says(!differs(ECN_OP_ECE, TH_ECE) && !differs(ECN_OP_CWR, TH_CWR))
}
/** ecn_tcp_checked - what is about TCP's flags is for TCP only. */
export function ecn_tcp_checked(entry: number, operation: number): boolean {
  return (operation & (ECN_OP_ECE | ECN_OP_CWR)) === 0 || wants(entry, IPPROTO_TCP)
}
define_match('ecn', 1, ecn_match, (_t, e, info) => {
  const word = i32[info >> 2]
  return ((word | (word >> 8)) & 255 & ~ECN_OP_ALL) === 0 && word >>> 16 < 4 && ecn_tcp_checked(e, word)
})
extension_module('ecn', ['match'])

// ---- ah, esp: first and last SPI, invert -------------------------------------------------------------------------------

/** The SPI lies at `at` of a header of `size` bytes. */
function spi_match(name: string, proto: number, size: number, at: number): void {
  const match: ipt_match_fn = (skb, _in, _out, info, offset) => {
    if (offset !== 0) return NO
    const h = transport(skb, size)
    if (h === 0) return HOTDROP
    const w = info >> 2
    const spi = dv.getUint32(h + at)
    return says((spi >= i32[w] >>> 0 && spi <= i32[w + 1] >>> 0) !== (i32[w + 2] !== 0))
  }
  define_match(name, 3, match, (_t, e, info) => wants(e, proto) && i32[(info >> 2) + 2] >>> 1 === 0)
  extension_module(name, ['match'])
}
spi_match('ah', IPPROTO_AH, 12, 4)
spi_match('esp', IPPROTO_ESP, 8, 0)

// ---- tcpmss: least | most << 16, invert --------------------------------------------------------------------------------

export const TCPOPT_MSS = 2
export const TCPOLEN_MSS = 4

function tcpmss_match(skb: sk_buff, _in: unknown, _out: unknown, info: number, offset: number): number {
  if (offset !== 0) return NO // 2.6.11 takes what lies there for a header
  const at = tcp_option(skb, TCPOPT_MSS, TCPOLEN_MSS)
  if (at < 0) return HOTDROP
  const w = info >> 2
  return says((at > 0 && between(dv.getUint16(at + 2), i32[w])) !== (i32[w + 1] !== 0))
}
define_match('tcpmss', 2, tcpmss_match, (_t, e) => wants(e, IPPROTO_TCP))
extension_module('tcpmss', ['match'])
