/**
 * snapshot.ts - what a shared buffer held before the first run. The RAM of a kernel is zeros for the most part: such pages are not
 * kept, and not written where they are zeros still, so that the host need not find memory for them.
 */
import { native } from './native.js'
import { PAGE_SHIFT } from './words.js'

export const PAGE = 1 << PAGE_SHIFT
const ZEROS = new Uint8Array(PAGE)
/** A buffer larger than this is kept, and put back, page by page. */
const WORTH_PAGES = 1 << 17

export class Snapshot {
  /** Pages of it; the last may be shorter. */
  readonly pages: number
  readonly #now: Uint8Array<SharedArrayBuffer>
  /** A small one as a whole. */
  readonly #whole: Uint8Array | null
  /** By page; ZEROS: nothing else was there. */
  readonly #saved: Uint8Array[] = []

  constructor(buffer: SharedArrayBuffer) {
    this.#now = new Uint8Array(buffer)
    this.pages = Math.ceil(buffer.byteLength / PAGE)
    this.#whole = buffer.byteLength > WORTH_PAGES ? null : this.#now.slice()
    if (this.#whole !== null) return
    for (let page = 0; page < this.pages; page++) {
      const at = page * PAGE
      const bytes = this.#now.subarray(at, at + PAGE)
      this.#saved.push(equal(bytes, ZEROS.subarray(0, bytes.length)) ? ZEROS : bytes.slice())
    }
  }

  get byPages(): boolean {
    return this.#whole === null
  }

  /** As it was, whatever was written. `differs` is told of each page that is not, before it is put back. */
  restore(differs?: (page: number) => void): void {
    if (this.#whole !== null) {
      native.set.call(this.#now, this.#whole)
      return
    }
    for (let page = 0; page < this.pages; page++) {
      const at = page * PAGE
      const bytes = this.#now.subarray(at, at + PAGE)
      if (equal(bytes, this.#kept(page, bytes.length))) continue
      differs?.(page)
      this.restorePage(page)
    }
  }

  /** One page of a buffer that is kept by pages. */
  restorePage(page: number): void {
    const at = page * PAGE
    native.set.call(this.#now, this.#kept(page, Math.min(PAGE, this.#now.length - at)), at)
  }

  #kept(page: number, length: number): Uint8Array {
    const saved = this.#saved[page]!
    return saved.length === length ? saved : saved.subarray(0, length)
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}
