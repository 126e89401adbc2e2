/**
 * crypto.ts - the seam to the ciphers and hashes of @noble: pure functions of bytes that share no memory with anybody. The only
 * file of the kernel that imports a package; the bytes of packets and keys are copied in and out.
 */
import { cbc } from '@noble/ciphers/aes.js'
import { hmac } from '@noble/hashes/hmac.js'
import { md5, sha1 } from '@noble/hashes/legacy.js'
import { sha256 } from '@noble/hashes/sha2.js'

export type Hash = 'md5' | 'sha1' | 'sha256'
const HASHES = { md5, sha1, sha256 }

/** aes_cbc_encrypt - `data`: whole blocks of 16 bytes. @returns as many bytes */
export function aes_cbc_encrypt(key: Uint8Array, iv: Uint8Array, data: Uint8Array): Uint8Array {
  return cbc(key, iv, { disablePadding: true }).encrypt(data)
}
export function aes_cbc_decrypt(key: Uint8Array, iv: Uint8Array, data: Uint8Array): Uint8Array {
  return cbc(key, iv, { disablePadding: true }).decrypt(data)
}

/** hmac_digest - RFC 2104. @returns the whole digest: 16, 20 or 32 bytes */
export function hmac_digest(hash: Hash, key: Uint8Array, data: Uint8Array): Uint8Array {
  return hmac(HASHES[hash], key, data)
}
