/** registers.ts - where in a CPU's area its registers lie, bytes; the picture of it is in cpu.ts. */

export const CPU_PENDING = 0
export const CPU_PARKED = 4
export const CPU_STOP = 8
export const CPU_IF = 128
export const CPU_PREEMPT = 132
export const CPU_CURRENT = 136
export const CPU_CONTEXT = 140
export const CPU_HELD = 144
export const CPU_WAITS_FOR = 152
export const CPU_TICKET = 156
export const CPU_CLOCK = 160
export const CPU_SOFTIRQ = 168
export const CPU_PRIORITY = 172
export const CPU_DEAD = 176
export const CPU_WHIRL = 180
/** Read-side sections of RCU that it is in; counted where locks are watched. */
export const CPU_RCU = 184
/** On its way to sleep for a lock: from the announcement to the sleep it looks for no interrupt. */
export const CPU_PARKING = 188
export const CPU_HELD_STACK = 256
export const CPU_STAT = 448
export const CPU_MCS = 512
export const CPU_VARS = 1024
/** Cycles by context and function, f64: where virtual time went. Also the end of the per-CPU variables. */
export const CPU_TALLY = 0xc000
/** Statistics of the locks that this CPU took, in virtual time (sync/lockstat.ts). */
export const CPU_LOCKSTAT = 0xe000

// contexts, in the order of the columns of /proc/stat
export const USER = 0
export const NICE = 1
export const SYSTEM = 2
export const IDLE = 3
export const IOWAIT = 4
export const HARDIRQ = 5
export const SOFTIRQ = 6
export const CONTEXT_NAMES = ['user', 'nice', 'system', 'idle', 'iowait', 'hardirq', 'softirq'] as const

/** An entry of the held stack is the address of a lock, and in its lowest bits how an rwlock is held. */
export const HELD_READ = 1
export const HELD_WRITE = 2

/** What a dump or a trace calls them. */
export const CPU_WORDS: Record<number, string | undefined> = {
  [CPU_PENDING]: 'pending',
  [CPU_PARKED]: 'parked',
  [CPU_STOP]: 'stop',
  [CPU_IF]: 'irqs_on',
  [CPU_PREEMPT]: 'preempt_count',
  [CPU_CURRENT]: 'current',
  [CPU_CONTEXT]: 'context',
  [CPU_HELD]: 'locks_held',
  [CPU_WAITS_FOR]: 'waits_for',
  [CPU_TICKET]: 'ticket',
  [CPU_SOFTIRQ]: 'softirq_pending',
  [CPU_PRIORITY]: 'priority',
}
