/** text.ts - messages and places in the source, in shared memory: one thread writes them, the conductor reads them. */
import { type Layout, TEXT_AT } from './words.js'

/** Bytes at the end of the arena that places in the source leave to what the run says. */
const MESSAGE_ROOM = 2048

/** Text - an arena that each run begins anew; what finds no room in it is cut off. */
export class Text {
  readonly #w: Int32Array
  readonly #bytes: Uint8Array

  constructor(shared: SharedArrayBuffer, layout: Layout) {
    this.#w = new Int32Array(shared)
    this.#bytes = new Uint8Array(shared, layout.text * 4, layout.textWords * 4)
  }

  /** A place in the source. @returns where it stands, and its length in bytes */
  write(text: string): [number, number] {
    const at = this.#w[TEXT_AT]!
    const length = this.#put(text, at, this.#bytes.length - MESSAGE_ROOM)
    this.#w[TEXT_AT] = at + length
    return [at, length]
  }

  /** What a run says of itself: one message, the last that is said. @returns as write() */
  say(text: string): [number, number] {
    const at = this.#bytes.length - MESSAGE_ROOM
    return [at, this.#put(text, at, this.#bytes.length)]
  }

  #put(text: string, at: number, end: number): number {
    const bytes = new TextEncoder().encode(text)
    const length = Math.min(bytes.length, Math.max(0, end - at))
    this.#bytes.set(bytes.subarray(0, length), at)
    return length
  }

  read(at: number, length: number): string {
    return new TextDecoder().decode(this.#bytes.slice(at, at + length))
  }
}
