/** ipsec.ts - the other end of an association, by the ciphers of Node: what it sends, and what it makes of what it gets. */
import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { expect } from 'vitest'
import { ip_main } from '../../src/user/ip.js'
import { setuid } from '../../src/user/libc.js'
import { ipFrame, parse } from './frames.js'
import { run } from './programs.js'
import type { Script } from './script.js'
import { ip as address } from './solo.js'

export interface Association {
  src: string
  dst: string
  spi: number
  hash?: 'md5' | 'sha1' | 'sha256'
  auth?: Buffer
  /** Absent: no encryption. */
  enc?: Buffer
}
const be32 = (n: number): number[] => [n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]
const icv = (a: Association, data: Uint8Array): Buffer =>
  a.auth === undefined
    ? Buffer.alloc(0)
    : createHmac(a.hash ?? 'sha1', a.auth)
        .update(data)
        .digest()
        .subarray(0, 12)

/** esp - header, ciphertext, digest around a payload of protocol `next`; `pad` instead of what is right. */
export function esp(a: Association, seq: number, payload: Uint8Array, next: number, pad?: number): Buffer {
  const block = a.enc === undefined ? 4 : 16
  const fill = -(payload.length + 2) & (block - 1)
  const plain = Buffer.from([...payload, ...Array.from({ length: fill }, (_, k) => k + 1), pad ?? fill, next])
  const iv = Buffer.alloc(a.enc === undefined ? 0 : 16, seq)
  let text: Buffer = plain
  if (a.enc !== undefined) {
    const cipher = createCipheriv(`aes-${a.enc.length * 8}-cbc`, a.enc, iv).setAutoPadding(false)
    text = Buffer.concat([cipher.update(plain), cipher.final()])
  }
  const body = Buffer.concat([Buffer.from([...be32(a.spi), ...be32(seq)]), iv, text])
  return Buffer.concat([body, icv(a, body)])
}
export function espFrame(a: Association, seq: number, payload: Uint8Array, next: number): Uint8Array {
  return ipFrame(esp(a, seq, payload, next), { src: a.src, dst: a.dst, protocol: 50 })
}

/** What is in a frame of ESP, if its digest is right. */
export function unwrap(a: Association, frame: Uint8Array): { seq: number; iv: string; next: number; payload: Buffer } {
  const { payload, protocol } = parse(frame)
  if (protocol !== 50) throw new Error(`protocol ${protocol}`)
  const all = Buffer.from(payload)
  const end = all.length - (a.auth === undefined ? 0 : 12)
  if (all.readUInt32BE(0) !== a.spi || !icv(a, all.subarray(0, end)).equals(all.subarray(end)))
    throw new Error('not sound')
  const iv = all.subarray(8, a.enc === undefined ? 8 : 24)
  let plain = all.subarray(8 + iv.length, end)
  if (a.enc !== undefined) {
    const cipher = createDecipheriv(`aes-${a.enc.length * 8}-cbc`, a.enc, iv).setAutoPadding(false)
    plain = Buffer.concat([cipher.update(plain), cipher.final()])
  }
  const fill = plain[plain.length - 2]!
  const padding = [...plain.subarray(plain.length - 2 - fill, plain.length - 2)]
  if (padding.some((b, k) => b !== k + 1)) throw new Error(`padding ${padding}`)
  const seq = all.readUInt32BE(4)
  return {
    seq,
    iv: iv.toString('hex'),
    next: plain[plain.length - 1]!,
    payload: plain.subarray(0, plain.length - 2 - fill),
  }
}

/** ah - the header in front of a payload; the digest is of the packet as `ipFrame` builds it, with 0 for what changes. */
export function ahFrame(
  a: Association,
  seq: number,
  payload: Uint8Array,
  next: number,
  options: number[] = [],
  id = 1,
): Uint8Array {
  const head = (digest: Buffer): Buffer =>
    Buffer.concat([Buffer.from([next, 4, 0, 0, ...be32(a.spi), ...be32(seq)]), digest, payload])
  const o = { src: a.src, dst: a.dst, protocol: 51, options, id }
  const covered = Buffer.from(ipFrame(head(Buffer.alloc(12)), o)).subarray(14)
  const total = covered.readUInt16BE(2)
  covered[1] = 0
  covered.fill(0, 6, 9)
  covered.fill(0, 10, 12)
  covered.fill(0, 20, 20 + ((options.length + 3) & ~3)) // the options of these tests all change
  return ipFrame(head(icv(a, covered.subarray(0, total))), o)
}

/** ahUnwrap - what is in a frame of AH without IP options, if its digest is right. */
export function ahUnwrap(a: Association, frame: Uint8Array): { seq: number; next: number; payload: Buffer } {
  const { protocol } = parse(frame)
  if (protocol !== 51) throw new Error(`protocol ${protocol}`)
  const packet = Buffer.from(frame).subarray(14, 14 + Buffer.from(frame).readUInt16BE(16))
  const covered = Buffer.from(packet)
  covered[1] = 0
  covered.fill(0, 6, 9)
  covered.fill(0, 10, 12)
  covered.fill(0, 32, 44)
  if (packet.readUInt32BE(24) !== a.spi || !icv(a, covered).equals(packet.subarray(32, 44)))
    throw new Error('not sound')
  return { seq: packet.readUInt32BE(28), next: packet[20]!, payload: packet.subarray(44) }
}

/** ipcomp - a header, and what zlib makes of a payload of protocol `next`; its window may be larger than ours. */
export function ipcomp(cpi: number, payload: Uint8Array, next: number, flags = 0): Buffer {
  return Buffer.concat([Buffer.from([next, flags, cpi >> 8, cpi & 255]), deflateRawSync(payload)])
}
export function ipcompFrame(a: Association, payload: Uint8Array, next: number): Uint8Array {
  return ipFrame(ipcomp(a.spi, payload, next), { src: a.src, dst: a.dst, protocol: 108 })
}
/** uncomp - what is in the payload of a packet of IPComp, for a reader who remembers 2 KiB. */
export function uncomp(payload: Uint8Array): { cpi: number; flags: number; next: number; payload: Buffer } {
  const [next, flags, hi, lo] = payload as unknown as [number, number, number, number]
  const plain = inflateRawSync(payload.subarray(4), { windowBits: 11, chunkSize: 64 })
  return { cpi: hi * 256 + lo, flags, next, payload: plain }
}

/** One command line of `ip`: [exit code, what it printed, what it complained of]. */
export function ip(s: Script, line: string, uid = 0): [number, string, string] {
  let [out, err] = ['', '']
  const code = run(s, function* () {
    if (uid !== 0) yield* setuid(uid)
    return yield* ip_main(
      line
        .split(' ')
        .filter(Boolean)
        .map(w => (w === "''" ? '' : w)),
      {
        *out(text) {
          out += text
          return 0
        },
        *err(text) {
          err += text
          return 0
        },
      },
    )
  })
  return [code, out, err]
}
/** state - the words of `ip xfrm state add` for an association. */
export function state(a: Association, more = ''): string {
  const auth = a.auth === undefined ? '' : `auth ${a.hash ?? 'sha1'} 0x${a.auth.toString('hex')} `
  const enc = a.enc === undefined ? "enc cipher_null ''" : `enc aes 0x${a.enc.toString('hex')}`
  return `xfrm state add src ${a.src} dst ${a.dst} proto esp spi ${a.spi} ${auth}${enc} ${more}`
}

/** The router of the tests of IPsec: 10.0.0.1 on eth0, between two peers there and one behind eth1. */
export const ROUTER_OF_IPSEC = {
  ports: [{ addresses: [{ local: address('10.0.0.1'), prefixlen: 24 }] }, {}],
  neighbours: [
    { address: address('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: address('10.0.0.3'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x103 } },
    { address: address('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
  ],
  config: { loopback: 1, user_procs: 4 },
}

/** `ip` on that machine: `good` says nothing and ends well; `refused` gives what it said instead. */
export function operator(s: Script) {
  const good = (line: string): void => expect(ip(s, line)).toEqual([0, '', ''])
  const refused = (line: string): string => {
    const [code, out, err] = ip(s, line)
    expect([code, out]).toEqual([2, ''])
    return err.trim().replace('RTNETLINK answers: ', '')
  }
  const flush = (): void => {
    good('xfrm policy flush')
    good('xfrm state flush')
  }
  return { good, refused, flush }
}
