/** xfrm_algo.ts - the algorithms by name (net/xfrm/xfrm_algo.c). A number of one is its place in PF_KEY, as in 2.6.11. */
import type { Hash } from './crypto.js'

export interface auth_algo {
  id: number
  name: string
  hash: Hash
  /** Bytes that a packet carries of the digest. */
  trunc: number
  keybits: readonly [min: number, max: number]
}
export interface enc_algo {
  id: number
  name: string
  block: number
  iv: number
  keybits: readonly number[]
}
export interface comp_algo {
  id: number
  name: string
  /** Bytes below which nobody tries. */
  threshold: number
}

export const AALGS: readonly auth_algo[] = [
  { id: 2, name: 'md5', hash: 'md5', trunc: 12, keybits: [128, 128] },
  { id: 3, name: 'sha1', hash: 'sha1', trunc: 12, keybits: [160, 160] },
  { id: 5, name: 'sha256', hash: 'sha256', trunc: 12, keybits: [256, 256] }, // 128 bits by RFC 4868, which is younger
]
export const EALGS: readonly enc_algo[] = [
  { id: 11, name: 'cipher_null', block: 1, iv: 0, keybits: [0] },
  { id: 12, name: 'aes', block: 16, iv: 16, keybits: [128, 192, 256] },
]
/** 2.6.11 knows of lzs and lzjh, too, but nobody has them. */
export const CALGS: readonly comp_algo[] = [{ id: 2, name: 'deflate', threshold: 90 }]
const ALIASES: Record<string, string | undefined> = {
  ...{ 'hmac(md5)': 'md5', 'hmac(sha1)': 'sha1', 'hmac(sha256)': 'sha256' },
  ...{ 'cbc(aes)': 'aes', 'ecb(cipher_null)': 'cipher_null' },
}

export function xfrm_aalg_get_byname(name: string): auth_algo | undefined {
  return AALGS.find(a => a.name === (ALIASES[name] ?? name))
}
export function xfrm_ealg_get_byname(name: string): enc_algo | undefined {
  return EALGS.find(a => a.name === (ALIASES[name] ?? name))
}
/** xfrm_calg_get_byname - no aliases. */
export function xfrm_calg_get_byname(name: string): comp_algo | undefined {
  return CALGS.find(a => a.name === name)
}
export function aalg_of(id: number): auth_algo {
  return AALGS.find(a => a.id === id)!
}
export function ealg_of(id: number): enc_algo {
  return EALGS.find(a => a.id === id)!
}
export function calg_of(id: number): comp_algo {
  return CALGS.find(a => a.id === id)!
}
