/** text.ts - messages and places in the source, in shared memory: one thread writes them, the conductor reads them. */
import { type Layout, TEXT_AT } from './words.js'

/** Text - an arena that each run begins anew; what finds no room in it is cut off. */
export class Text {
  readonly #w: Int32Array
  readonly #bytes: Uint8Array

  constructor(shared: SharedArrayBuffer, layout: Layout) {
    this.#w = new Int32Array(shared)
    this.#bytes = new Uint8Array(shared, layout.text * 4, layout.textWords * 4)
  }

  /** @returns where it stands, and its length in bytes */
  write(text: string): [number, number] {
    const at = this.#w[TEXT_AT]!
    const bytes = new TextEncoder().encode(text)
    const length = Math.min(bytes.length, Math.max(0, this.#bytes.length - at))
    this.#bytes.set(bytes.subarray(0, length), at)
    this.#w[TEXT_AT] = at + length
    return [at, length]
  }

  read(at: number, length: number): string {
    return new TextDecoder().decode(this.#bytes.slice(at, at + length))
  }
}
