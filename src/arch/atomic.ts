/**
 * atomic.ts - the machine's atomic operations; with ram.ts the only place that spells `Atomics`.
 *
 * JavaScript has no fences: every operation here is sequentially consistent, and the smp_wmb() of the original is the
 * store it protected. The WebAssembly twin does the same on the same memory at half the cost; turnstile threads load the
 * plain twin so that every access passes through the (replaced) global Atomics. A test holds the two equal.
 * In virtual time each operation first says which cache line it wants (`line_entry`), so that lines that move cost cycles.
 */
import { boot } from './boot.js'
import { LOCK_WASM } from './lock.wasm.js'
import { RAM } from './ram.js'

const i32 = RAM.i32

export interface AtomicOps {
  load(addr: number): number
  store(addr: number, value: number): void
  /** Returns the old value, as do the fetch_ operations. */
  xchg(addr: number, value: number): number
  cmpxchg(addr: number, old: number, value: number): number
  fetch_add(addr: number, n: number): number
  fetch_or(addr: number, mask: number): number
  fetch_and(addr: number, mask: number): number
}

export const plain_ops: AtomicOps = {
  load: addr => Atomics.load(i32, addr >> 2),
  store: (addr, value) => {
    Atomics.store(i32, addr >> 2, value)
  },
  xchg: (addr, value) => Atomics.exchange(i32, addr >> 2, value),
  cmpxchg: (addr, old, value) => Atomics.compareExchange(i32, addr >> 2, old, value),
  fetch_add: (addr, n) => Atomics.add(i32, addr >> 2, n),
  fetch_or: (addr, mask) => Atomics.or(i32, addr >> 2, mask),
  fetch_and: (addr, mask) => Atomics.and(i32, addr >> 2, mask),
}

function wasm_bytes(): Uint8Array<ArrayBuffer> {
  const text = atob(LOCK_WASM)
  const bytes = new Uint8Array(text.length)
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k)
  return bytes
}

export const wasm_ops = new WebAssembly.Instance(new WebAssembly.Module(wasm_bytes()), { m: { ram: boot.memory } })
  .exports as unknown as AtomicOps

/** Filled by cpu.ts: a line is wanted for reading, or for writing. */
export const line_entry = {
  read: (_addr: number): void => {},
  write: (_addr: number): void => {},
}

const virtual_ops: AtomicOps = {
  load: addr => {
    line_entry.read(addr)
    return wasm_ops.load(addr)
  },
  store: (addr, value) => {
    line_entry.write(addr)
    wasm_ops.store(addr, value)
  },
  xchg: (addr, value) => {
    line_entry.write(addr)
    return wasm_ops.xchg(addr, value)
  },
  cmpxchg: (addr, old, value) => {
    line_entry.write(addr)
    return wasm_ops.cmpxchg(addr, old, value)
  },
  fetch_add: (addr, n) => {
    line_entry.write(addr)
    return wasm_ops.fetch_add(addr, n)
  },
  fetch_or: (addr, mask) => {
    line_entry.write(addr)
    return wasm_ops.fetch_or(addr, mask)
  },
  fetch_and: (addr, mask) => {
    line_entry.write(addr)
    return wasm_ops.fetch_and(addr, mask)
  },
}

const PLAIN = boot.plainAtomics === true || boot.controlled === true
const ops = PLAIN ? plain_ops : boot.virtual === true ? virtual_ops : wasm_ops

export const load = ops.load
export const store = ops.store
export const xchg = ops.xchg
export const cmpxchg = ops.cmpxchg
export const fetch_add = ops.fetch_add
export const fetch_or = ops.fetch_or
export const fetch_and = ops.fetch_and

/**
 * Operations on words that only this machine has: who sleeps for a lock, and the wake-up. A CPU that spins needs no such
 * words, so in virtual time their lines cost nothing.
 */
export const quiet_ops: AtomicOps = PLAIN ? plain_ops : wasm_ops

/** want_line - in virtual time: get the line of `addr` for writing, as an atomic operation on it would. */
export function want_line(addr: number): void {
  line_entry.write(addr)
}

/** wait_on_address - sleep on the host until somebody wakes the word, unless it no longer holds `value`. */
export function wait_on_address(addr: number, value: number, timeout_ms: number): void {
  // Under control a wake-up that is missing must be seen, not made good for.
  Atomics.wait(i32, addr >> 2, value, boot.controlled === true ? undefined : timeout_ms)
}

const MARKED = boot.controlled === true && boot.buffered !== true

/**
 * READ_ONCE - a plain load of a word that others change meanwhile, and that is meant to be one: to see it late does no
 * harm. Under control it is a step, at which others may go on, and no data race; with store buffers all plain accesses are.
 */
export const READ_ONCE: (addr: number) => number = MARKED
  ? addr => Atomics.load(i32, addr >> 2)
  : addr => i32[addr >> 2]

/** WRITE_ONCE - a plain store of a word that others read meanwhile. */
export const WRITE_ONCE: (addr: number, value: number) => void = MARKED
  ? (addr, value) => void Atomics.store(i32, addr >> 2, value)
  : (addr, value) => {
      i32[addr >> 2] = value
    }

/** wake_by_address - wake up to `n` threads that sleep on the word. */
export function wake_by_address(addr: number, n: number): void {
  Atomics.notify(i32, addr >> 2, n)
}

/** mark_written - under control: memory was written by other means than atomic operations, struct fields and elements. */
export function mark_written(addr: number, len: number): void {
  if (boot.controlled !== true) return
  const watcher = (globalThis as { __softnet?: { touched(view: Int32Array, at: number, len: number): void } }).__softnet
  watcher?.touched(i32, addr, len)
}
