/** torture.ts - what the torture programs and the host that reads their counters both call by name. */

/** Locks that can be tortured; `locks` is all of them at once. The order is that of the bits in the control word `mask`. */
export const TORTURE_LOCKS = ['spin', 'spin-irq', 'spin-bh', 'rwlock', 'rwlock-irq', 'seqlock', 'semaphore'] as const
export type TortureLock = (typeof TORTURE_LOCKS)[number]

/** Flavours of RCU: two with callbacks, and `rcu` with synchronize_kernel() instead. Bits of `mask` as well. */
export const RCU_FLAVOURS = ['rcu', 'rcu_bh', 'rcu_sync'] as const
export type RcuFlavour = (typeof RCU_FLAVOURS)[number]

/** Grace periods that an element waits after it was taken out of sight, before it is freed. */
export const RCU_TORTURE_PIPE_LEN = 10
/** Slots of a reader's histograms: no grace period since, one, two and so on; what is older is counted in the last one. */
export const RCU_TORTURE_SLOTS = RCU_TORTURE_PIPE_LEN + 1

/** Slots of the histogram of lateness, in jiffies: 0, 1, 2-3, 4-7 and so on; the last one has all that is later. */
export const LATE_SLOTS = 12

/** late_slot - of so many jiffies. */
export function late_slot(jiffies: number): number {
  return Math.min(LATE_SLOTS - 1, 32 - Math.clz32(jiffies))
}
