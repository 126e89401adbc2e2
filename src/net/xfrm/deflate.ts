/**
 * deflate.ts - the seam to the zlib of the host, as crypto/deflate.c of 2.6.11 asks for it: raw streams, a window of 2 KiB. The
 * only file of the kernel that asks Node for anything; it does so when the first packet comes, so that the kernel loads as
 * fast as before, and loads without Node. What is compressed is what this zlib makes of it: any peer can read that, but another
 * version may make other bytes of the same packet.
 */
type Zlib = typeof import('node:zlib')

const OPTIONS = { windowBits: 11, memLevel: 8 } // level: Z_DEFAULT_COMPRESSION

function zlib(): Zlib | undefined {
  return globalThis.process?.getBuiltinModule?.('node:zlib')
}
export function deflate_available(): boolean {
  return zlib() !== undefined
}

export function deflate_compress(data: Uint8Array): Uint8Array {
  return zlib()!.deflateRawSync(data, OPTIONS)
}

/**
 * deflate_decompress - in one piece: whoever compressed may have had a larger window. What follows the stream does not matter.
 * @returns null: no sound stream, none that ends, or more than `max` bytes
 */
export function deflate_decompress(data: Uint8Array, max: number): Uint8Array | null {
  try {
    return zlib()!.inflateRawSync(data, { ...OPTIONS, maxOutputLength: max, chunkSize: max })
  } catch {
    return null // zlib throws at what others send
  }
}
