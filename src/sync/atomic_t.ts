/** atomic_t.ts - atomic counters and bits, as include/asm/atomic.h and bitops.h name them. @context any */
import { atomic, type Layout, layout, Struct, word } from '../abi/layout.js'
import { cmpxchg, fetch_add, fetch_and, fetch_or, load, store } from '../arch/atomic.js'

export class atomic_t extends Struct {
  declare counter: number
}
export const ATOMIC: Layout<atomic_t> = layout('atomic_t', atomic_t, { counter: atomic(word) })

export function atomic_read(v: atomic_t): number {
  return v.counter // a plain load, as in the original
}
export function atomic_set(v: atomic_t, n: number): void {
  store(v.addr, n)
}
export function atomic_inc(v: atomic_t): void {
  fetch_add(v.addr, 1)
}
export function atomic_dec(v: atomic_t): void {
  fetch_add(v.addr, -1)
}
export function atomic_add(n: number, v: atomic_t): void {
  fetch_add(v.addr, n)
}
export function atomic_sub(n: number, v: atomic_t): void {
  fetch_add(v.addr, -n)
}
/** True when the counter reached 0. */
export function atomic_dec_and_test(v: atomic_t): boolean {
  return fetch_add(v.addr, -1) === 1
}
export function atomic_inc_return(v: atomic_t): number {
  return fetch_add(v.addr, 1) + 1
}
export function atomic_dec_return(v: atomic_t): number {
  return fetch_add(v.addr, -1) - 1
}

/** Bit operations on the word at `addr`; `nr` 0 to 31. */
export function test_bit(nr: number, addr: number): boolean {
  return (load(addr) & (1 << nr)) !== 0
}
export function set_bit(nr: number, addr: number): void {
  fetch_or(addr, 1 << nr)
}
export function clear_bit(nr: number, addr: number): void {
  fetch_and(addr, ~(1 << nr))
}
/** Returns the old bit. */
export function test_and_set_bit(nr: number, addr: number): boolean {
  return (fetch_or(addr, 1 << nr) & (1 << nr)) !== 0
}
export function test_and_clear_bit(nr: number, addr: number): boolean {
  return (fetch_and(addr, ~(1 << nr)) & (1 << nr)) !== 0
}

/** atomic_inc_not_zero - take a reference only while there is one. True when taken. */
export function atomic_inc_not_zero(v: atomic_t): boolean {
  for (let n = load(v.addr); n !== 0; ) {
    const seen = cmpxchg(v.addr, n, n + 1)
    if (seen === n) return true
    n = seen
  }
  return false
}
