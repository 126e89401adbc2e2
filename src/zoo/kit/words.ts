/** words.ts - what the small kernels of the zoo are made of: words of shared memory, a lock that sleeps, a lock that spins. */

/** Which of the two a scenario is to be: what went wrong in the wild, or the same with its fix. */
export type Twin = 'buggy' | 'fixed'

/** One word of shared memory: named alone, so that a trace calls it by the name that `setup` gives it. */
export type Word = Int32Array

export function word(value = 0): Word {
  const w = new Int32Array(new SharedArrayBuffer(4))
  w[0] = value
  return w
}

/** mutex_lock - sleeps while another one has it. */
export function mutex_lock(m: Word): void {
  while (Atomics.compareExchange(m, 0, 0, 1) !== 0) Atomics.wait(m, 0, 1)
}
export function mutex_unlock(m: Word): void {
  Atomics.store(m, 0, 0)
  Atomics.notify(m, 0, 1)
}

/** refcount_inc_not_zero - take a reference only while there is one. True when taken. */
export function refcount_inc_not_zero(r: Word): boolean {
  for (let n = Atomics.load(r, 0); n !== 0; ) {
    const seen = Atomics.compareExchange(r, 0, n, n + 1)
    if (seen === n) return true
    n = seen
  }
  return false
}
/** refcount_inc - as refcount_t of later kernels, which says when the count had been 0. */
export function refcount_inc(r: Word): void {
  if (Atomics.add(r, 0, 1) <= 0) throw broken('addition on 0')
}
/** refcount_dec_and_test - true when that was the last one. */
export function refcount_dec_and_test(r: Word): boolean {
  const was = Atomics.sub(r, 0, 1)
  if (was <= 0) throw broken('underflow')
  return was === 1
}

function broken(what: string): Error {
  return Object.assign(new Error(`${what}; use after free`), { detector: 'refcount' })
}
