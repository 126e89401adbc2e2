/** effects.ts - what kinds of operations do to their word. */

/** What an operation does to its word. */
export interface Effect {
  atomic: boolean
  reads: boolean
  writes: boolean
  /** When it changes nothing it was a look. */
  looks: boolean
  /** Nobody races with it: the code says so itself. */
  silent?: boolean
}

export const LOADS: Effect = { atomic: true, reads: true, writes: false, looks: true }
export const STORES: Effect = { atomic: true, reads: false, writes: true, looks: false }
export const UPDATES: Effect = { atomic: true, reads: true, writes: true, looks: true }
/** A compareExchange that fails writes nothing. */
export const FAILS: Effect = LOADS
export const READS: Effect = { atomic: false, reads: true, writes: false, looks: true }
/** The same under a comment that says data_race. */
export const SILENT_READS: Effect = { atomic: false, reads: true, writes: false, looks: true, silent: true }
export const SILENT_WRITES: Effect = { atomic: false, reads: false, writes: true, looks: false, silent: true }
export const WRITES: Effect = { atomic: false, reads: false, writes: true, looks: false }
