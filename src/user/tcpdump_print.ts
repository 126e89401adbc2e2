/** tcpdump_print.ts - a frame as a line of tcpdump. Fields that are not there are told as `[|what]`, as the original does. */
import { ether_ntoa } from './libpacket.js'
import { inet_ntoa } from './stdio.js'

export interface PrintOptions {
  /** -e: the link header too. */
  link: boolean
  /** -q: less. */
  quick: boolean
}

const ETH = 14
const TYPES: Readonly<Record<number, string>> = { 2048: 'IPv4', 2054: 'ARP', 32821: 'Reverse ARP', 34525: 'IPv6' }
const NAMES: Readonly<Record<number, string>> = { 1: 'icmp', 2: 'igmp', 6: 'tcp', 17: 'udp' }

class Bytes {
  constructor(readonly b: Uint8Array) {}
  get length(): number {
    return this.b.length
  }
  u8(at: number): number {
    return this.b[at] ?? 0
  }
  u16(at: number): number {
    return this.u8(at) * 256 + this.u8(at + 1)
  }
  u32(at: number): number {
    return this.u16(at) * 65536 + this.u16(at + 2)
  }
  address(at: number): string {
    return inet_ntoa(this.u32(at) | 0)
  }
  mac(at: number): string {
    return ether_ntoa(this.b.subarray(at, at + 6))
  }
  from(at: number, len = this.length - at): Bytes {
    return new Bytes(this.b.subarray(at, Math.min(this.length, at + Math.max(0, len))))
  }
}

/** frame_line - without time and end of line; `length`: of the whole frame, of which `frame` may be the beginning. */
export function frame_line(frame: Uint8Array, length: number, o: PrintOptions): string {
  const f = new Bytes(frame)
  if (f.length < ETH) return '[|ether]'
  const type = f.u16(12)
  const payload = f.from(ETH)
  const text =
    type === 0x0800 ? ip(payload, o) : type === 0x0806 ? arp(payload, length - ETH) : `length ${length - ETH}`
  const name = TYPES[type] ?? (type < 1536 ? '802.3' : 'Unknown')
  if (o.link) {
    const hex = `0x${type.toString(16).padStart(4, '0')}`
    const which = o.quick ? name : `ethertype ${name} (${hex})`
    return `${f.mac(6)} > ${f.mac(0)}, ${which}, length ${length}: ${text}`
  }
  if (type === 0x0800) return `IP ${text}`
  if (type === 0x0806) return `ARP, ${text}`
  return `${f.mac(6)} > ${f.mac(0)}, ethertype 0x${type.toString(16).padStart(4, '0')}, ${text}`
}

function arp(p: Bytes, length: number): string {
  if (p.length < 28) return '[|arp]'
  const end = `, length ${length}`
  const [spa, tpa] = [p.address(14), p.address(24)]
  const op = p.u16(6)
  if (op === 1) {
    const to = p.mac(18) === '00:00:00:00:00:00' || p.mac(18) === 'ff:ff:ff:ff:ff:ff' ? '' : ` (${p.mac(18)})`
    return `Request who-has ${tpa}${to} tell ${spa}${end}`
  }
  return op === 2 ? `Reply ${spa} is-at ${p.mac(8)}${end}` : `op ${op}${end}`
}

function ip(p: Bytes, o: PrintOptions): string {
  if (p.length < 20) return '[|ip]'
  const hlen = (p.u8(0) & 15) * 4
  const total = p.u16(2)
  if (hlen < 20 || total < hlen) return `truncated-ip or bad header, hlen ${hlen}, length ${total}`
  const [src, dst] = [p.address(12), p.address(16)]
  const offset = (p.u16(6) & 0x1fff) * 8
  const more = (p.u16(6) & 0x2000) !== 0
  const data = p.from(hlen, total - hlen)
  const size = total - hlen
  const fragment = offset > 0 || more ? ` (frag ${p.u16(4)}:${size}@${offset}${more ? '+' : ''})` : ''
  const proto = p.u8(9)
  if (offset > 0) return `${src} > ${dst}: ${NAMES[proto] ?? `ip-proto-${proto}`}${fragment}`
  return `${transport(proto, src, dst, data, size, o)}${fragment}`
}

function transport(proto: number, src: string, dst: string, d: Bytes, size: number, o: PrintOptions): string {
  const hosts = `${src} > ${dst}: `
  switch (proto) {
    case 1:
      return hosts + icmp(d, dst, size)
    case 2:
      return hosts + igmp(d)
    case 6:
      return d.length < 20 ? `${hosts}[|tcp]` : `${src}.${d.u16(0)} > ${dst}.${d.u16(2)}: ${tcp(d, size, o)}`
    case 17:
      if (d.length < 8) return `${hosts}[|udp]`
      return `${src}.${d.u16(0)} > ${dst}.${d.u16(2)}: UDP, length ${d.u16(4) - 8}`
    default:
      return `${hosts}ip-proto-${proto} ${size}`
  }
}

/** What an ICMP error says of the packet that it quotes. */
function quoted(d: Bytes): { dst: string; proto: number; port: number } {
  const hlen = (d.u8(8) & 15) * 4
  return { dst: d.address(24), proto: d.u8(17), port: d.u16(8 + hlen + 2) }
}
const UNREACHABLE: Readonly<Record<number, (q: ReturnType<typeof quoted>, from: string, d: Bytes) => string>> = {
  0: q => `net ${q.dst} unreachable`,
  1: q => `host ${q.dst} unreachable`,
  2: q => `${q.dst} protocol ${q.proto} unreachable`,
  3: q => `${q.dst} ${NAMES[q.proto] ?? q.proto} port ${q.port} unreachable`,
  4: (q, _, d) => `${q.dst} unreachable - need to frag (mtu ${d.u16(6)})`,
  5: q => `${q.dst} unreachable - source route failed`,
  9: q => `net ${q.dst} unreachable - admin prohibited`,
  10: q => `host ${q.dst} unreachable - admin prohibited`,
  13: (_, from) => `host ${from} unreachable - admin prohibited filter`,
}
function icmp(d: Bytes, to: string, size: number): string {
  if (d.length < 8) return '[|icmp]'
  const [type, code] = [d.u8(0), d.u8(1)]
  const end = `, length ${size}`
  if (type === 0 || type === 8)
    return `ICMP echo ${type === 8 ? 'request' : 'reply'}, id ${d.u16(4)}, seq ${d.u16(6)}${end}`
  if (type === 3 || type === 11 || type === 5 || type === 12) {
    const q = quoted(d)
    if (type === 3) return `ICMP ${UNREACHABLE[code]?.(q, to, d) ?? `${q.dst} unreachable - #${code}`}${end}`
    if (type === 11) return `ICMP ${code === 0 ? 'time exceeded in-transit' : 'ip reassembly time exceeded'}${end}`
    if (type === 5) return `ICMP redirect ${q.dst} to ${code === 0 ? 'net' : 'host'} ${d.address(4)}${end}`
    return `ICMP parameter problem - octet ${d.u8(4)}${end}`
  }
  const names: Readonly<Record<number, string>> = { 4: 'source quench', 13: 'time stamp query', 14: 'time stamp reply' }
  return `ICMP ${names[type] ?? `type-#${type}`}${end}`
}

function igmp(d: Bytes): string {
  if (d.length < 8) return '[|igmp]'
  const group = d.address(4)
  switch (d.u8(0)) {
    case 0x11: {
      const version = d.length >= 12 ? 3 : d.u8(1) === 0 ? 1 : 2
      return `igmp query v${version}${group === '0.0.0.0' ? '' : ` [gaddr ${group}]`}`
    }
    case 0x12:
      return `igmp v1 report ${group}`
    case 0x16:
      return `igmp v2 report ${group}`
    case 0x17:
      return `igmp leave ${group}`
    case 0x22:
      return `igmp v3 report, ${d.u16(6)} group record(s)`
    default:
      return `igmp-${d.u8(0)}`
  }
}

const FLAGS = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W']
function tcp(d: Bytes, size: number, o: PrintOptions): string {
  const hlen = (d.u8(12) >> 4) * 4
  const len = size - hlen
  if (o.quick) return `tcp ${len}`
  const bits = d.u8(13)
  const flags = [0, 1, 2, 3, 5, 6, 7, 4].filter(k => (bits & (1 << k)) !== 0).map(k => FLAGS[k])
  const seq = d.u32(4)
  const seqs = len > 0 ? `, seq ${seq}:${(seq + len) % 2 ** 32}` : (bits & 7) !== 0 ? `, seq ${seq}` : ''
  const ack = (bits & 16) !== 0 ? `, ack ${d.u32(8)}` : ''
  const urgent = (bits & 32) !== 0 ? `, urg ${d.u16(18)}` : ''
  return `Flags [${flags.join('') || 'none'}]${seqs}${ack}, win ${d.u16(14)}${urgent}${tcp_options(d, hlen)}, length ${len}`
}
function tcp_options(d: Bytes, hlen: number): string {
  const out: string[] = []
  for (let at = 20; at < hlen && d.u8(at) !== 0; ) {
    const kind = d.u8(at)
    const len = kind === 1 ? 1 : Math.max(2, d.u8(at + 1))
    if (kind === 1) out.push('nop')
    else if (kind === 2) out.push(`mss ${d.u16(at + 2)}`)
    else if (kind === 3) out.push(`wscale ${d.u8(at + 2)}`)
    else if (kind === 4) out.push('sackOK')
    else if (kind === 5) out.push(`sack ${(len - 2) >> 3}`)
    else if (kind === 8) out.push(`TS val ${d.u32(at + 2)} ecr ${d.u32(at + 6)}`)
    else out.push(`unknown-${kind}`)
    at += len
  }
  return out.length === 0 ? '' : `, options [${out.join(',')}]`
}

/** hex_lines - -x: all bytes, sixteen to a line. */
export function hex_lines(b: Uint8Array): string {
  let text = ''
  for (let at = 0; at < b.length; at += 16) {
    const row = b.subarray(at, at + 16)
    const words = Array.from({ length: Math.ceil(row.length / 2) }, (_, k) =>
      [...row.subarray(2 * k, 2 * k + 2)].map(n => n.toString(16).padStart(2, '0')).join(''),
    )
    text += `\t0x${at.toString(16).padStart(4, '0')}:  ${words.join(' ')}\n`
  }
  return text
}
