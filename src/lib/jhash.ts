/** jhash.ts - Bob Jenkins' lookup2 as in include/linux/jhash.h of 2.6.11. Results are int32. */

const JHASH_GOLDEN_RATIO = 0x9e3779b9 | 0

/** jhash_3words - hash of three words and a seed. */
export function jhash_3words(a0: number, b0: number, c0: number, initval: number): number {
  let a = (a0 + JHASH_GOLDEN_RATIO) | 0
  let b = (b0 + JHASH_GOLDEN_RATIO) | 0
  let c = (c0 + initval) | 0
  a = ((a - b - c) | 0) ^ (c >>> 13)
  b = ((b - c - a) | 0) ^ (a << 8)
  c = ((c - a - b) | 0) ^ (b >>> 13)
  a = ((a - b - c) | 0) ^ (c >>> 12)
  b = ((b - c - a) | 0) ^ (a << 16)
  c = ((c - a - b) | 0) ^ (b >>> 5)
  a = ((a - b - c) | 0) ^ (c >>> 3)
  b = ((b - c - a) | 0) ^ (a << 10)
  c = ((c - a - b) | 0) ^ (b >>> 15)
  return c
}
/** jhash_name - of a text; never 0. */
export function jhash_name(text: string): number {
  let h = 0x811c9dc5 | 0
  for (let k = 0; k < text.length; k++) h = Math.imul(h ^ text.charCodeAt(k), 0x01000193)
  return h === 0 ? 1 : h
}

export function jhash_2words(a: number, b: number, initval: number): number {
  return jhash_3words(a, b, 0, initval)
}
export function jhash_1word(a: number, initval: number): number {
  return jhash_3words(a, 0, 0, initval)
}
