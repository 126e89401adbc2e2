/**
 * deflate.ts - the seam to pako, as crypto/deflate.c of 2.6.11 asks zlib: raw streams, a window of 2 KiB. What it makes of a packet is
 * what the zlib of zlib.net makes of it, on every host: runs in virtual time are the same to the bit.
 */
import { deflateRaw, Inflate } from 'pako'

/** level: Z_DEFAULT_COMPRESSION. */
const OPTIONS = { windowBits: 11, memLevel: 8, legacyHash: true }

export function deflate_compress(data: Uint8Array): Uint8Array {
  return deflateRaw(data, OPTIONS)
}

/**
 * deflate_decompress - whoever compressed may have had a larger window. What follows the stream does not matter.
 * @returns null: no sound stream, none that ends, or more than `max` bytes
 */
export function deflate_decompress(data: Uint8Array, max: number): Uint8Array | null {
  const inflate = new Inflate({ raw: true, chunkSize: max })
  const parts: Uint8Array[] = []
  inflate.onData = part => {
    if (parts.push(part) > 1) throw new RangeError('a little stream can hold very much')
  }
  try {
    inflate.push(data, true)
  } catch {
    return null
  }
  return inflate.err === 0 && inflate.ended ? (parts[0] ?? new Uint8Array(0)) : null
}
