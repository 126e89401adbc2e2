/** boot.ts - what a thread is told before any kernel module loads: which memory is RAM, and which CPU it is. */

export interface BootInfo {
  /** The machine's RAM. */
  memory: WebAssembly.Memory
  /** This thread's CPU number, 0 to 31; -1 on a thread that is no CPU (NIC, host). */
  cpu: number
  /** Nanoseconds of the host's monotonic clock, on one time base for every thread of the machine. */
  now(): number
  /** Lock kind of this machine: 0 test-and-set, 1 ticket, 2 MCS. */
  lockKind: number
  /** Virtual time: one actor of the machine runs at a time, and its clock goes on by what it is charged. */
  virtual?: boolean
  /**
   * Controlled: a strategy picks every interleaving. All operations go through the global Atomics, accesses of struct fields
   * through what watches them, and nobody looks again by himself after a time.
   */
  controlled?: boolean
  /** Watch the order of locks (sync/lockdep.ts) in the other two ways, too. */
  lockdep?: boolean
  /** Controlled, with store buffers: what is meant to be a plain access must be one. */
  buffered?: boolean
  /** Use the plain twin of the lock module, whose every access goes through the global Atomics. */
  plainAtomics?: boolean
  /** Filled by the kernel where it is under control: what the explorer asks it. */
  watch?: {
    /** An actor begins. */
    begun?(): void
    /** An actor has come to its end: throws when its CPU is not as it should be then. */
    ended?(): void
    /** Context and held locks of this CPU, in words. */
    here?(): string
    /** The pending word, the bits of it that would be taken now, and to take them. */
    interrupts?: { view: Int32Array; index: number; mask(): number; deliver(): void }
  }
}

declare global {
  var softnet_boot: BootInfo | undefined
}

/** A thread that loads kernel modules without being given a machine gets a small RAM of its own (unit tests, tools). */
export const boot: BootInfo = globalThis.softnet_boot ?? {
  memory: new WebAssembly.Memory({ initial: 1024, maximum: 1024, shared: true }),
  cpu: 0,
  now: () => performance.now() * 1e6,
  lockKind: 0,
}

/** The order of locks is watched on this machine. */
export const LOCKDEP = boot.lockdep === true || boot.controlled === true

/**
 * And what CPUs are in the middle of: RCU readers, contexts, seqlocks. Not with store buffers, where memory does not hold what
 * a CPU knows of itself.
 */
export const PROVE = LOCKDEP && boot.buffered !== true
