/** J7: one counts in a byte of a word that another one writes as a whole. */
import type { Twin } from '../kit/words.js'

export function setup(twin: Twin) {
  const header = new SharedArrayBuffer(8)
  return {
    // Fixed: the count has a word of its own.
    at: twin === 'fixed' ? 4 : 1,
    word: new Int32Array(header, 0, 1),
    bytes: new Uint8Array(header),
  }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  type({ word }: Shared) {
    word[0] = 1
  },
  count({ at, bytes }: Shared) {
    bytes[at]++
  },
}
