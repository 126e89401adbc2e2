/**
 * exclusive.ts - what code says of its own accesses, as ASSERT_EXCLUSIVE_* of KCSAN have it: that nobody else writes some
 * elements now, touches them, or changes some of their bits. Atomic accesses count as well: it is a mistake in the plan of who
 * may do what, not a race of plain accesses, that they find.
 *
 * Under control they are held against all that the other actors do; anywhere else they do nothing, so they may stay in the code.
 */
import { K_EXCLUSIVE_ACCESS, K_EXCLUSIVE_BITS, K_EXCLUSIVE_WRITER } from './words.js'

/** A typed array of integers or floats over shared memory. */
export type ClaimedView = ArrayBufferView & { readonly length: number; readonly BYTES_PER_ELEMENT: number }
export type Claim = (
  kind: number,
  view: ClaimedView,
  index: number,
  length: number,
  mask: number,
  scoped: boolean,
) => () => void

const nothing = (): void => {}

function claim(kind: number, view: ClaimedView, index: number, length: number, mask = 0, scoped = false): () => void {
  const watcher = (globalThis as { __softnet?: { claim?: Claim } }).__softnet
  return watcher?.claim?.(kind, view, index, length, mask, scoped) ?? nothing
}

/** assertExclusiveWriter - nobody else writes `length` elements from `index` on; others may read them. */
export function assertExclusiveWriter(view: ClaimedView, index = 0, length = 1): void {
  claim(K_EXCLUSIVE_WRITER, view, index, length)
}

/** assertExclusiveAccess - nobody else reads or writes them. */
export function assertExclusiveAccess(view: ClaimedView, index = 0, length = 1): void {
  claim(K_EXCLUSIVE_ACCESS, view, index, length)
}

/** assertExclusiveBits - nobody else changes the bits in `mask` of an element; others may change the rest of it. */
export function assertExclusiveBits(view: ClaimedView, index: number, mask: number): void {
  claim(K_EXCLUSIVE_BITS, view, index, 1, mask)
}

/** assertExclusiveWriterScoped - nobody else writes them until the returned function is called. */
export function assertExclusiveWriterScoped(view: ClaimedView, index = 0, length = 1): () => void {
  return claim(K_EXCLUSIVE_WRITER, view, index, length, 0, true)
}

/** assertExclusiveAccessScoped - nobody else reads or writes them until the returned function is called. */
export function assertExclusiveAccessScoped(view: ClaimedView, index = 0, length = 1): () => void {
  return claim(K_EXCLUSIVE_ACCESS, view, index, length, 0, true)
}
