/**
 * histogram.ts - a log-linear histogram over counters that the caller keeps, so that it can lie in shared memory.
 *
 * Values from 0 to 2^40: below 64 exactly, above with 64 parts to each power of two, so within 1.6 %. The counters are
 * HISTOGRAM_SLOTS words; one writer.
 */
const SUB_BITS = 6
const SUB = 1 << SUB_BITS
const MAX_EXP = 40
/** Words that a histogram takes. */
export const HISTOGRAM_SLOTS = (MAX_EXP - SUB_BITS + 1) * SUB

/** histogram_slot - where a value is counted. */
export function histogram_slot(value: number): number {
  if (value < SUB) return value < 0 ? 0 : Math.floor(value)
  if (value >= 1099511627776) return HISTOGRAM_SLOTS - 1
  // Without powers and divisions: the board does this for every frame that leaves.
  if (value < 1073741824) {
    const v = value | 0
    const exp = 31 - Math.clz32(v)
    return ((exp - SUB_BITS + 1) << SUB_BITS) + (v >> (exp - SUB_BITS)) - SUB
  }
  const high = Math.floor(value / 1024)
  const exp = 31 - Math.clz32(high)
  return ((exp + 10 - SUB_BITS + 1) << SUB_BITS) + (high >> (exp - SUB_BITS)) - SUB
}

/** histogram_value - the middle of a slot. */
export function histogram_value(slot: number): number {
  if (slot < SUB) return slot
  const exp = Math.floor(slot / SUB) + SUB_BITS - 1
  const width = 2 ** (exp - SUB_BITS)
  return 2 ** exp + (slot % SUB) * width + width / 2
}

/** histogram_record - count a value. */
export function histogram_record(slots: Int32Array, value: number): void {
  slots[histogram_slot(value)]!++
}

/** histogram_total - how many values were counted. */
export function histogram_total(slots: Int32Array): number {
  let total = 0
  for (let k = 0; k < HISTOGRAM_SLOTS; k++) total += slots[k]! >>> 0
  return total
}

/** histogram_percentile - the value that `p` (0 to 1) of all values do not exceed, or null when there are none. */
export function histogram_percentile(slots: Int32Array, p: number): number | null {
  const total = histogram_total(slots)
  if (total === 0) return null
  const rank = Math.max(1, Math.ceil(total * p))
  let seen = 0
  for (let k = 0; k < HISTOGRAM_SLOTS; k++) {
    seen += slots[k]! >>> 0
    if (seen >= rank) return histogram_value(k)
  }
  return histogram_value(HISTOGRAM_SLOTS - 1)
}
