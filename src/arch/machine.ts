/** machine.ts - the boot page: power state, configuration, panic text. Written by the host and CPU 0, read by everybody. */

import { HZ } from '../lib/limits.js'
import { cmpxchg, fetch_or, load, store, wake_by_address } from './atomic.js'
import { boot } from './boot.js'
import { VIRTUAL } from './cost.js'
import { HALTING, OFF, PANIC, POWER } from './power.js'
import { BOOT_PAGE, PANIC_MAX, PANIC_TEXT, PERCPU_BASE, PERCPU_SHIFT, RAM } from './ram.js'
import { actor_wake, turnstile_freeze } from './turnstile.js'

export * from './power.js'

const i32 = RAM.i32
const u8 = RAM.u8

// words of the boot page (addresses); the first is POWER
export const ONLINE = BOOT_PAGE + 4 // mask of CPUs that run
export const PANIC_CPU = BOOT_PAGE + 8
export const PANIC_LEN = BOOT_PAGE + 12
export const BOOT_HASH = BOOT_PAGE + 16 // symbols and layouts, as CPU 0 sees them
export const DOORBELL = BOOT_PAGE + 20 // counts requests of the host to a running machine
export const DOORBELL_DONE = BOOT_PAGE + 24 // requests that the machine has served
export const DOORBELL_OP = BOOT_PAGE + 28 // what is asked for: DOORBELL_CPU_*, DOORBELL_NIC_*
export const DOORBELL_ARG = BOOT_PAGE + 32
export const DOORBELL_RESULT = BOOT_PAGE + 36 // 0, or a negative errno
export const JIFFIES = BOOT_PAGE + 128 // on a line of its own: read everywhere, written by one
export const CONFIG = BOOT_PAGE + 256

export const DOORBELL_CPU_DOWN = 1
export const DOORBELL_CPU_UP = 2
export const DOORBELL_NIC_DEL = 3
export const DOORBELL_NIC_ADD = 4

/** Words of the configuration block, set by the host before boot. */
export const CONFIG_WORDS = [
  'ncpus',
  'hz',
  'lock_kind',
  'irq_cost_ns', // entry and exit together
  'spin_limit', // tries before a waiter parks
  'idle_spin_ns', // how long an idle CPU spins before it sleeps
  'seed',
  'rx_arch', // 0 interrupt, 1 softnet, 2 napi
  'irq_work', // packets per receive interrupt; 0 leaves it to the architecture (driver)
  'itr_ns', // a receive interrupt comes at most once in this time
  'itr_frames', // or when that many frames wait; 0: only time counts
  'irq_affinity', // 0: lines spread over the CPUs; 1: all to CPU 0
  'tidv_ns', // longest that a sent frame waits until the driver is told; 0: 64 us, -1: no time
  'tx_queue_len', // packets of a device's output queue; 0: 1000
  'poll_quota', // frames per callback of the polling thread; 0: as many as come
  'cycle_limit', // percent of a period that the polling thread may use; 0: all
  'screend', // 1: a process screens forwarded packets
  'screen_feedback', // 1: its queue inhibits input when it is nearly full
  'trace', // 1: record context changes
  'nports',
  'nqueues',
  'rx_ring',
  'tx_ring',
  'user_spin', // 1: run the compute-bound user process
  'ip_input', // bounded IP input queue of the interrupt architecture, packets
  'skbs', // sk_buffs in the pool
  'pio_ns', // programmed I/O: ns for each 4 bytes between CPU and NIC; 0 means DMA
  'jumbo', // packet buffers of 16 KiB; 0 means SKB_DATA_16K
  'loopback', // 1: the device lo, with 127.0.0.1/8
  'user_procs', // programs of users that the machine has memory for at once
  'link_ms', // how often a driver looks whether its NIC has a carrier; 0: the wires of this machine always have one
  'slab_shift', // caches are so many halvings smaller than by default; for machines of a few packets and routes
  'slab_poison', // 1: objects are filled when they are given out and taken back, and looked at in between
] as const
export type ConfigWord = (typeof CONFIG_WORDS)[number]

/** config_addr - where a configuration word lives. */
export function config_addr(name: ConfigWord): number {
  return CONFIG + CONFIG_WORDS.indexOf(name) * 4
}

/** config - read a configuration word; for boot and slow paths. */
export function config(name: ConfigWord): number {
  return i32[config_addr(name) >> 2]
}

const HZ_W = config_addr('hz') >> 2
/** hz - ticks a second of this machine. */
export function hz(): number {
  return i32[HZ_W] || HZ
}

/** num_cpus - CPUs of this machine. */
export function num_cpus(): number {
  return i32[CONFIG >> 2]
}

/** Thrown by the CPU that found a broken invariant, after the whole machine was told. */
export class KernelPanic extends Error {
  override name = 'KernelPanic'
}

// vectors: bits of a CPU's pending word, lowest first
export const VEC_HALT = 0
export const VEC_TIMER = 1
export const VEC_RESCHED = 2
export const VEC_CALL = 3
export const VEC_DEVICE = 4 // 4 to 30: device lines
export const UNPARK = 1 << 31 // not an interrupt: a lock was handed to a sleeping waiter

/** send_vector - set a bit of a CPU's pending word, and wake its thread if it sleeps. @context any, any thread */
export function send_vector(cpu: number, vector: number): void {
  const area = PERCPU_BASE + (cpu << PERCPU_SHIFT)
  fetch_or(area, 1 << vector)
  if (VIRTUAL) actor_wake(cpu, 0)
  else if (load(area + 4) !== 0) wake_by_address(area, 1)
}

/** power_down - stop the machine: every CPU leaves the kernel at its next look at the pending word. A halt may end in a panic. */
export function power_down(state: number = HALTING): boolean {
  for (let was = load(POWER); ; ) {
    if (was === PANIC || was === OFF || was === state) return false
    const seen = cmpxchg(POWER, was, state)
    if (seen === was) break
    was = seen
  }
  for (let cpu = 0; cpu < num_cpus(); cpu++) send_vector(cpu, VEC_HALT)
  return true
}

/** publish_panic - first caller wins: write the dump where the host finds it, and stop everybody. */
export function publish_panic(text: string): boolean {
  if (VIRTUAL) turnstile_freeze()
  if (!power_down(PANIC)) return false
  const n = Math.min(text.length, PANIC_MAX)
  for (let k = 0; k < n; k++) u8[PANIC_TEXT + k] = text.charCodeAt(k) & 0xff
  store(PANIC_CPU, boot.cpu)
  store(PANIC_LEN, n)
  wake_by_address(PANIC_LEN, 1)
  return true
}

/** panic_text - the dump of a machine that panicked, or ''. */
export function panic_text(): string {
  let text = ''
  for (let k = 0; k < load(PANIC_LEN); k++) text += String.fromCharCode(u8[PANIC_TEXT + k])
  return text
}
