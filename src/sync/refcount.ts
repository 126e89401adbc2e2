/**
 * refcount.ts - counts of references, at an address: as atomic counters, and where locks are watched a count that goes up from
 * 0 or below it stops the machine (refcount_t of later kernels says so always). @context any
 */
import { describe_addr } from '../abi/section.js'
import { fetch_add } from '../arch/atomic.js'
import { LOCKDEP } from '../arch/boot.js'
import { bug } from '../arch/bug.js'

function name_of(addr: number): string {
  return describe_addr(addr) ?? `0x${addr.toString(16)}`
}

/** refcount_inc - one more; whoever takes it has one, or keeps the last one from being dropped. */
export function refcount_inc(addr: number): void {
  const was = fetch_add(addr, 1)
  if (LOCKDEP && was <= 0) bug('refcount', `${name_of(addr)} goes up from ${was}: what it counts was given up`)
}

/** refcount_dec_and_test - one less. True when that was the last one. */
export function refcount_dec_and_test(addr: number): boolean {
  const was = fetch_add(addr, -1)
  if (LOCKDEP && was <= 0) bug('refcount', `${name_of(addr)} goes down from ${was}: a reference was dropped twice`)
  return was === 1
}

/** refcount_dec - one less, of something that lives on without any. */
export function refcount_dec(addr: number): void {
  refcount_dec_and_test(addr)
}
