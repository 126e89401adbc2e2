/** addresses.ts - addresses and prefixes as users write them. What is wrong with one is an AddressError in words. */
import ipaddr from 'ipaddr.js'
import type { Mac } from '../hw/types.js'

/** What is wrong with a word; who knows where it stands says so. */
export class AddressError extends Error {}
export function fail(what: string): never {
  throw new AddressError(what)
}

/** A.B.C.D as int32. */
export function parseAddress(text: string): number {
  if (!ipaddr.IPv4.isValidFourPartDecimal(text)) fail(`'${text}' is not an IPv4 address`)
  const [a, b, c, d] = ipaddr.IPv4.parse(text).octets as [number, number, number, number]
  return (a << 24) | (b << 16) | (c << 8) | d
}

/** dotted - an int32 as A.B.C.D. */
export function dotted(addr: number): string {
  return [24, 16, 8, 0].map(shift => (addr >>> shift) & 255).join('.')
}
/** One that a host can have. */
export function parseHost(text: string): number {
  const addr = parseAddress(text)
  const first = addr >>> 24
  if (first === 0 || first === 127 || first >= 224) fail(`${text} is not the address of a host`)
  return addr
}

/** mask - of a prefix length. */
export function mask(prefixlen: number): number {
  return prefixlen === 0 ? 0 : -1 << (32 - prefixlen)
}

export function parsePrefixLength(text: string, whole: string): number {
  const n = /^\d{1,2}$/.test(text) ? Number(text) : Number.NaN
  if (!(n >= 0 && n <= 32)) fail(`'${whole}': the prefix length must be 0 to 32`)
  return n
}

/** ADDRESS/LENGTH; without a length it is a host. */
export function parsePrefix(text: string): { dst: number; prefixlen: number } {
  if (text === 'default') return { dst: 0, prefixlen: 0 }
  const [address = '', length, more] = text.split('/')
  if (more !== undefined) fail(`'${text}' has more than one prefix length`)
  const dst = parseAddress(address)
  const prefixlen = length === undefined ? 32 : parsePrefixLength(length, text)
  if ((dst & ~mask(prefixlen)) !== 0) fail(`'${text}' has bits set beyond its prefix length`)
  return { dst, prefixlen }
}

export function parseMac(text: string): Mac {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) fail(`'${text}' is not a MAC address such as 02:00:00:00:00:01`)
  const bytes = text.split(':').map(b => Number.parseInt(b, 16)) as [number, number, number, number, number, number]
  if ((bytes[0] & 1) !== 0) fail(`${text} is a multicast address`)
  if (bytes.every(b => b === 0)) fail(`${text} is nobody's address`)
  return { hi: (bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3], lo: (bytes[4] << 8) | bytes[5] }
}

/** ADDRESS/LENGTH of an interface. */
export function parseInterfaceAddress(text: string): { local: number; prefixlen: number } {
  const [address = '', length, more] = text.split('/')
  if (length === undefined) fail(`'${text}' needs a prefix length, such as ${text}/24`)
  if (more !== undefined) fail(`'${text}' has more than one prefix length`)
  const own = { local: parseHost(address), prefixlen: parsePrefixLength(length, text) }
  const edge = edgeOf(own, own.local)
  if (edge !== null) fail(`${address} is the ${edge} of ${text}`)
  return own
}

/** Which end of a network an address is; those of 31 and 32 bits have none. */
export function edgeOf({ local, prefixlen }: { local: number; prefixlen: number }, addr: number): string | null {
  const host = ~mask(prefixlen)
  if (prefixlen >= 31 || ((local ^ addr) & ~host) !== 0) return null
  return (addr & host) === 0 ? 'network address' : (addr & host) === host ? 'broadcast address' : null
}
