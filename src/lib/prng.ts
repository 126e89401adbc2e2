/** prng.ts - xoshiro128** on a state of four words that the caller keeps, so that a run is a function of its seed. */

/** prng_seed - fill a state from one number (splitmix32); never all zero. */
export function prng_seed(state: Int32Array, seed: number): void {
  let s = seed | 0
  for (let k = 0; k < 4; k++) {
    s = (s + 0x9e3779b9) | 0
    let z = s
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    state[k] = z ^ (z >>> 16)
  }
  if ((state[0]! | state[1]! | state[2]! | state[3]!) === 0) state[0] = 1
}

/** prng_u32 - the next 32 random bits, as a number from 0 to 2^32 - 1. */
export function prng_u32(state: Int32Array): number {
  const s1 = state[1]!
  const m = Math.imul(s1, 5)
  const result = Math.imul((m << 7) | (m >>> 25), 9)
  const t = s1 << 9
  const s2 = state[2]! ^ state[0]!
  const s3 = state[3]! ^ s1
  state[1] = s1 ^ s2
  state[0] = state[0]! ^ s3
  state[2] = s2 ^ t
  state[3] = (s3 << 11) | (s3 >>> 21)
  return result >>> 0
}

/** prng_f64 - uniform in [0, 1). */
export function prng_f64(state: Int32Array): number {
  return prng_u32(state) / 4294967296
}

/** prng_below - uniform in 0 to n - 1. */
export function prng_below(state: Int32Array, n: number): number {
  return Math.floor(prng_f64(state) * n)
}

/** prng_exponential - exponentially distributed with this mean. */
export function prng_exponential(state: Int32Array, mean: number): number {
  return -mean * Math.log(1 - prng_f64(state))
}
