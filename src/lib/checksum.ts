/**
 * checksum.ts - the Internet checksum (RFC 1071, RFC 1624) over a DataView in network order.
 *
 * A partial sum is a number of any size below 2^53; csum_fold brings it to 16 bits and complements it.
 */

/** csum_partial - add the 16-bit words of `len` bytes; an odd last byte counts as the upper half of a word. */
export function csum_partial(dv: DataView, addr: number, len: number, sum: number): number {
  let s = sum
  let at = addr
  const end4 = addr + (len & ~3)
  for (; at < end4; at += 4) s += dv.getUint32(at) // 2^16 = 1 modulo 2^16 - 1, so wider words add up to the same
  if ((len & 2) !== 0) {
    s += dv.getUint16(at)
    at += 2
  }
  if ((len & 1) !== 0) s += dv.getUint8(at) << 8
  return s
}

/** csum_fold - the checksum of a partial sum, 0 to 0xffff. */
export function csum_fold(sum: number): number {
  let s = sum
  while (s > 0xffffffff) s = (s % 4294967296) + Math.floor(s / 4294967296)
  s = (s & 0xffff) + (s >>> 16)
  s = (s & 0xffff) + (s >>> 16)
  return ~s & 0xffff
}

/** ip_fast_csum - checksum of an IPv4 header of `ihl` 32-bit words: 0 when a received one is right. */
export function ip_fast_csum(dv: DataView, iph: number, ihl: number): number {
  let s = 0
  for (let k = 0; k < ihl; k++) {
    const w = dv.getInt32(iph + k * 4)
    s += (w & 0xffff) + (w >>> 16)
  }
  s = (s & 0xffff) + (s >>> 16)
  s = (s & 0xffff) + (s >>> 16)
  return ~s & 0xffff
}

/** csum_tcpudp_nofold - partial sum of the pseudo header; addresses are words, `len` is that of header and data. */
export function csum_tcpudp_nofold(saddr: number, daddr: number, len: number, proto: number, sum: number): number {
  return sum + (saddr >>> 0) + (daddr >>> 0) + len + proto
}
/** csum_tcpudp_magic - the finished checksum of a TCP or UDP packet from the partial sum of its bytes. */
export function csum_tcpudp_magic(saddr: number, daddr: number, len: number, proto: number, sum: number): number {
  return csum_fold(csum_tcpudp_nofold(saddr, daddr, len, proto, sum))
}

/** csum_replace2 - the checksum after a 16-bit word changed: HC' = ~(~HC + ~m + m'), RFC 1624 eqn. 3. */
export function csum_replace2(check: number, from: number, to: number): number {
  let s = (~check & 0xffff) + (~from & 0xffff) + to
  s = (s & 0xffff) + (s >>> 16)
  s = (s & 0xffff) + (s >>> 16)
  return ~s & 0xffff
}

/** csum_replace4 - the same for a word of 32 bits, such as an address. */
export function csum_replace4(check: number, from: number, to: number): number {
  return csum_replace2(csum_replace2(check, from >>> 16, to >>> 16), from & 0xffff, to & 0xffff)
}
