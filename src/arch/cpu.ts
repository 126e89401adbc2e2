/**
 * cpu.ts - one CPU: registers, interrupt flag, accounting, the points where it looks at its pending word.
 *
 * A CPU's area in RAM begins with
 *   line 0  written by others   +0 pending word  +4 parked (its thread sleeps)  +8 stop (it shall stand still)
 *   line 1  its own registers   +128 IF  +132 preempt_count  +136 current  +140 context  +144 locks held
 *                               +152 lock it waits for  +156 ticket it waits for   +160 time of the last change (f64)
 *                               +168 softirqs pending  +172 priority: vectors from this one on wait  +176 dead (stands still)
 *                               +180 what burn() computes  +184 RCU sections  +188 parking
 *   line 2  held locks, then cpu time by context (f64), then MCS queue nodes; kernel per-CPU variables from +1024
 *   +48 KiB virtual time: cycles by context and function (f64); +56 KiB statistics of locks
 *
 * A look at the pending word is a plain load: it is only ever set by others, so the worst is to see it late.
 */
import { PANIC_FRAMES } from '../lib/limits.js'
import { fetch_and, load, quiet_ops, READ_ONCE, store, WRITE_ONCE, wait_on_address, wake_by_address } from './atomic.js'
import { boot, LOCKDEP } from './boot.js'
import { now_ns } from './clock.js'
import { COST_BURN, COST_LINE, COST_RELAX, COST_SPIN, COST_WAKE, MAX_COSTS, VIRTUAL } from './cost.js'
import { HALTING, KernelPanic, num_cpus, POWER, PowerOff, publish_panic, RUNNING, UNPARK, VEC_HALT } from './machine.js'
import { COSTS, PERCPU_BASE, PERCPU_SHIFT, RAM } from './ram.js'
import {
  CONTEXT_NAMES,
  CPU_CLOCK,
  CPU_CONTEXT,
  CPU_DEAD,
  CPU_HELD,
  CPU_HELD_STACK,
  CPU_IF,
  CPU_PARKED,
  CPU_PARKING,
  CPU_PREEMPT,
  CPU_PRIORITY,
  CPU_SOFTIRQ,
  CPU_STAT,
  CPU_STOP,
  CPU_TALLY,
  CPU_TICKET,
  CPU_WAITS_FOR,
  CPU_WHIRL,
  SYSTEM,
} from './registers.js'
import { trace_switch } from './trace.js'
import {
  actor_block,
  actor_stand,
  actor_stood,
  actor_wake,
  ahead,
  note,
  ns_per_cycle,
  spend,
  switch_turn,
  WHY_BUSY,
  WHY_IDLE,
  WHY_STOPPED,
} from './turnstile.js'

export { now_ns } from './clock.js'
export * from './registers.js'

const i32 = RAM.i32
const f64 = RAM.f64

export const cpu_id = boot.cpu
const AREA = PERCPU_BASE + (Math.max(cpu_id, 0) << PERCPU_SHIFT)

const IF = (AREA + CPU_IF) >> 2
const PREEMPT = (AREA + CPU_PREEMPT) >> 2
const CONTEXT = (AREA + CPU_CONTEXT) >> 2
const CLOCK = (AREA + CPU_CLOCK) >> 3
const SOFTIRQ_PENDING = (AREA + CPU_SOFTIRQ) >> 2
const PRIORITY = (AREA + CPU_PRIORITY) >> 2
const WHIRL = (AREA + CPU_WHIRL) >> 2
const PARKING = (AREA + CPU_PARKING) >> 2
const STAT = (AREA + CPU_STAT) >> 3
const TALLY = (AREA + CPU_TALLY) >> 3
const COST_TABLE = COSTS >> 3
/** Priority of a CPU that serves no interrupt: every vector may come. */
const PRIORITY_NONE = 31

function pending_now(): number {
  return READ_ONCE(AREA)
}

/** cpu_area - address of a CPU's area. */
export function cpu_area(cpu: number): number {
  return PERCPU_BASE + (cpu << PERCPU_SHIFT)
}

/**
 * enter_context - charge the time since the last change to the old context and start the new one; `arg` is the irq, the
 * softirq or the pid. @returns the old context and its arg, packed, for leave_context
 */
export function enter_context(context: number, arg: number): number {
  const now = now_ns()
  const old = i32[CONTEXT]
  f64[STAT + (old & 7)] += now - f64[CLOCK]
  f64[CLOCK] = now
  i32[CONTEXT] = context | (arg << 3)
  trace_switch(now, context, arg)
  return old
}

/** leave_context - back to what enter_context returned. */
export function leave_context(old: number): void {
  enter_context(old & 7, old >> 3)
}

/** Upcalls, filled once per thread while the kernel's modules load: how hardware enters a kernel that it knows nothing of. */
export interface EntryVector {
  interrupt(vector: number): undefined
  /** An orderly halt was asked for: have the running task give the CPU away. */
  halt(): undefined
  /** Interrupts are about to be enabled: for lockdep. */
  irqs_on(): undefined
  /** Run pending softirqs: called when bottom halves are enabled again. */
  do_softirq(): undefined
  describe(addr: number): string
}
const entry: EntryVector = {
  interrupt: vector => panic(`no handler for vector ${vector}`),
  halt: () => undefined,
  irqs_on: () => undefined,
  do_softirq: () => panic('softirq raised before softirq_init'),
  describe: addr => `0x${addr.toString(16)}`,
}

/** set_entry - install the kernel's entry points. */
export function set_entry(points: Partial<EntryVector>): void {
  Object.assign(entry, points)
}

/** local_softirq_pending - mask of the softirqs raised on this CPU. */
export function local_softirq_pending(): number {
  return i32[SOFTIRQ_PENDING]
}
/** set_softirq_pending - interrupts are off. */
export function set_softirq_pending(mask: number): void {
  i32[SOFTIRQ_PENDING] = mask
}
/** enter_softirq - upcall to the kernel's do_softirq. */
export function enter_softirq(): void {
  entry.do_softirq()
}

// ---- interrupt flag -------------------------------------------------------------------------------------------------

/** local_irq_save - disable interrupts; returns the old flag for local_irq_restore. */
export function local_irq_save(): number {
  const flags = i32[IF]
  i32[IF] = 0
  return flags
}

/** local_irq_restore - back to the saved flag; pending interrupts are taken at once when that enables them. */
export function local_irq_restore(flags: number): void {
  if (LOCKDEP && flags !== 0) entry.irqs_on()
  i32[IF] = flags
  if (flags !== 0 && pending_now() !== 0) take_interrupts()
}

export function local_irq_disable(): void {
  i32[IF] = 0
}

export function local_irq_enable(): void {
  if (LOCKDEP) entry.irqs_on()
  i32[IF] = 1
  if (pending_now() !== 0) take_interrupts()
}

export function irqs_disabled(): boolean {
  return i32[IF] === 0
}

/** tick - a kernel function of weight says what it costs (its number, from cost()), and lets a pending interrupt in. */
export function tick(id: number): void {
  if (VIRTUAL) charge(id, f64[COST_TABLE + id])
  if (pending_now() !== 0 && i32[IF] !== 0) take_interrupts()
}

/** charge - virtual time: `cycles` have passed on this CPU. Others whose clocks are behind go on first. */
export function charge(id: number, cycles: number): void {
  tally(id, cycles)
  if (spend(cycles)) switch_turn()
}

/** busy - virtual time: compute for `cycles` that others see nothing of, unless an interrupt comes first, which is taken. */
export function busy(id: number, cycles: number): void {
  if (pending_now() === 0 || i32[IF] === 0) tally(id, actor_block(WHY_BUSY, cycles))
  if (pending_now() !== 0 && i32[IF] !== 0) take_interrupts()
}

/** seen - virtual time: others whose clocks are behind go on first, for what comes now they can see. */
export function seen(): void {
  if (ahead()) switch_turn()
}

/** charge_cost - as tick, where no interrupt may come in. */
export function charge_cost(id: number): void {
  if (VIRTUAL) charge(id, f64[COST_TABLE + id])
}

function tally(id: number, cycles: number): void {
  f64[TALLY + (i32[CONTEXT] & 7) * MAX_COSTS + id] += cycles
}

/**
 * take_interrupts - serve what is pending and goes before what is served already, lowest vector first, before one more
 * instruction of the code below runs. A handler that enables interrupts is interrupted by lower vectors only.
 */
export function take_interrupts(): void {
  while (i32[IF] !== 0) {
    i32[IF] = 0 // from the look to the handler nothing else comes in
    const pending = pending_now()
    const below = i32[PRIORITY]
    const due = pending & ((1 << below) - 1)
    if ((pending & (1 << VEC_HALT)) !== 0) {
      if (load(POWER) !== HALTING) power_gone()
      fetch_and(AREA, ~(1 << VEC_HALT))
      entry.halt()
    } else if (pending < 0) {
      quiet_ops.fetch_and(AREA, ~UNPARK) // a hand-over that came after its waiter looked again
    } else if (due !== 0) {
      const vector = 31 - Math.clz32(due & -due)
      fetch_and(AREA, ~(1 << vector))
      if (VIRTUAL) note(vector)
      i32[PRIORITY] = vector
      entry.interrupt(vector)
      i32[PRIORITY] = below
    }
    i32[IF] = 1
    if (pending >= 0 && due === 0) return
  }
}

/** end_of_interrupt - the last handler has returned: what runs on behalf of interrupts may be interrupted by all. */
export function end_of_interrupt(): void {
  i32[PRIORITY] = PRIORITY_NONE
}

/** halting - an orderly halt was asked for: the CPU stops where no task runs. A panic, or a plug that is pulled, cuts anywhere. */
export function halting(): boolean {
  return READ_ONCE(POWER) === HALTING
}

/** power_gone - this CPU leaves the kernel. */
export function power_gone(): never {
  throw new PowerOff('power off')
}

/** burn - spend `ns` of this CPU: what real hardware takes where a function call takes nothing. Returns the time it ended. */
export function burn(ns: number): number {
  const start = now_ns()
  if (VIRTUAL) {
    charge(COST_BURN, ns / ns_per_cycle())
    return now_ns()
  }
  const end = start + ns
  let now = start
  while (now < end) {
    const turns = (end - now) * BURNT * turns_per_ns
    whirl(turns)
    const then = now
    now = now_ns()
    if (turns > LEAST_TURNS) turns_per_ns += LEARN * (Math.min(turns / (now - then), FASTEST) - turns_per_ns)
  }
  return now
}
/**
 * A look at the clock leaves a number on the heap. A burn that did nothing but look would have V8 collect them all the time, for
 * 100 or 200 us every now and then, in which an interrupt-driven machine loses packets. So most of what is left is spent in a loop of known
 * speed before the next look; the speed is learnt, a little from each burn.
 */
let turns_per_ns = 0.3
const [BURNT, LEARN, FASTEST, LEAST_TURNS] = [0.8, 0.02, 10, 100]

function whirl(turns: number): void {
  let x = i32[WHIRL] | 1
  for (let k = 0; k < turns; k++) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
  }
  i32[WHIRL] = x
}

// ---- waiting --------------------------------------------------------------------------------------------------------

const PARK_MS = 2 // a parked waiter looks again by itself: insurance against a dead host thread, never relied on

/** cpu_relax - one turn of a spin loop: lets interrupts in, and sees the power go. */
export function cpu_relax(): void {
  if (VIRTUAL) tick(COST_RELAX)
  if (pending_now() === 0) return
  if (i32[IF] !== 0) take_interrupts()
  else if ((pending_now() & (1 << VEC_HALT)) !== 0 && load(POWER) !== HALTING) power_gone()
}

/** park_announce - say which lock (and ticket) this CPU is about to sleep for. The caller then looks at the lock once more. */
export function park_announce(lock: number, ticket: number): void {
  i32[PARKING] = 1
  WRITE_ONCE(AREA + CPU_TICKET, ticket)
  quiet_ops.store(AREA + CPU_WAITS_FOR, lock)
}

/**
 * park - give the host core away until unparked or interrupted. `lock`: what is waited for, with HELD_READ or HELD_WRITE
 * for an rwlock; only virtual time wants to know.
 */
export function park(lock: number): void {
  if (VIRTUAL) {
    stand_at_lock(lock)
    return
  }
  store(AREA + CPU_PARKED, 1)
  const pending = load(AREA)
  if (pending >= 0 && (pending === 0 || i32[IF] === 0)) wait_on_address(AREA, pending, PARK_MS)
  store(AREA + CPU_PARKED, 0)
  if (pending_now() < 0) fetch_and(AREA, ~UNPARK)
  i32[PARKING] = 0
  cpu_relax()
}

/** park() of virtual time: the CPU spins, which costs nobody anything, until the lock is handed to it. */
function stand_at_lock(lock: number): void {
  const pending = pending_now()
  if (pending >= 0 && (pending === 0 || i32[IF] === 0)) {
    tally(COST_SPIN, actor_stand(lock))
    if (pending_now() < 0) quiet_ops.fetch_and(AREA, ~UNPARK)
    cpu_relax()
    actor_stood()
    return
  }
  if (pending < 0) quiet_ops.fetch_and(AREA, ~UNPARK)
  cpu_relax()
}

/**
 * standing_at - virtual time: how many CPUs stand at `lock`. Each of them has a copy of its line, and wants it again when
 * the line was written.
 */
export function standing_at(lock: number): number {
  let n = 0
  for (let cpu = num_cpus() - 1; cpu >= 0; cpu--) if (i32[(cpu_area(cpu) + CPU_WAITS_FOR) >> 2] === lock) n++
  return n
}

/** lines_pass - virtual time: wait for the ways of `n` lines, one after another. */
export function lines_pass(n: number): void {
  if (n > 0) charge(COST_LINE, n * f64[COST_TABLE + COST_LINE])
}

/** park_done - this CPU waits no longer. */
export function park_done(): void {
  i32[PARKING] = 0
  quiet_ops.store(AREA + CPU_WAITS_FOR, 0)
}

/** unpark_cpu - hand-over to a CPU that sleeps for a lock. */
export function unpark_cpu(cpu: number): void {
  const area = cpu_area(cpu)
  if (VIRTUAL) seen()
  quiet_ops.fetch_or(area, UNPARK)
  if (VIRTUAL) actor_wake(cpu, 0)
  else if (load(area + CPU_PARKED) !== 0) wake_by_address(area, 1)
}

/** idle_wait - wait for the next interrupt: spin for `spin_ns`, then sleep. Interrupts are on. */
export function idle_wait(spin_ns: number): void {
  if (VIRTUAL) {
    if (pending_now() !== 0) return
    actor_block(WHY_IDLE)
    tick(COST_WAKE)
    return
  }
  if (spin_ns > 0) {
    const end = now_ns() + spin_ns
    do {
      for (let k = 0; k < 64; k++) if (pending_now() !== 0) return
    } while (now_ns() < end)
  }
  store(AREA + CPU_PARKED, 1)
  const pending = load(AREA)
  if (pending === 0) wait_on_address(AREA, 0, 100)
  store(AREA + CPU_PARKED, 0)
}

/** stop_wanted - has somebody asked this CPU to stand still? */
export function stop_wanted(): boolean {
  return READ_ONCE(AREA + CPU_STOP) !== 0
}

/** play_dead - stand still, interrupts off, until this CPU is wanted again or the power goes. */
export function play_dead(): void {
  local_irq_disable()
  store(AREA + CPU_DEAD, 1)
  while (VIRTUAL && load(POWER) === RUNNING && READ_ONCE(AREA + CPU_STOP) !== 0) actor_block(WHY_STOPPED)
  while (load(AREA + CPU_STOP) !== 0 && load(POWER) === RUNNING) {
    store(AREA + CPU_PARKED, 1)
    const pending = load(AREA)
    if (load(AREA + CPU_STOP) !== 0) wait_on_address(AREA, pending, 100)
    store(AREA + CPU_PARKED, 0)
  }
  store(AREA + CPU_DEAD, 0)
  local_irq_enable()
}

// ---- the end --------------------------------------------------------------------------------------------------------

const HELD_AS = ['', '(r)', '(w)', '']

/** describe_lock - its name for dumps, with how it is held or wanted. */
export function describe_lock(lock: number): string {
  return `${entry.describe(lock & ~3)}${HELD_AS[lock & 3]}`
}

function where(): string {
  const context = CONTEXT_NAMES[i32[CONTEXT] & 7] ?? '?'
  const count = i32[PREEMPT] >>> 0
  let held = ''
  for (let k = 0; k < i32[(AREA + CPU_HELD) >> 2]; k++) {
    held += ` ${describe_lock(i32[(AREA + CPU_HELD_STACK + k * 4) >> 2])}`
  }
  return (
    `CPU: ${cpu_id}  context: ${context}  preempt_count: 0x${count.toString(16)}  ` +
    `irqs: ${i32[IF] !== 0 ? 'on' : 'off'}\nheld locks:${held === '' ? ' none' : held}`
  )
}

/** call_trace - where an error was made: a line for each frame, innermost first, without the path of this machine's files. */
export function call_trace(error: Error, skip = /^$/): string[] {
  return (error.stack ?? '')
    .split('\n')
    .filter(line => /^\s+at /.test(line) && !skip.test(line))
    .map(line => line.trim().replace(/\(.*[\\/](?=(src|workers|test)[\\/])/, '('))
}

/** dump - what the host prints when a machine dies: the function, the CPU, the context, the held locks, the call trace. */
export function dump(title: string, error: Error): string {
  const trace = call_trace(
    error,
    /\b(panic|BUG_ON|dump|BUG|stuck|stands|actor_block|actor_stand|stand_at_lock|park|nobody|switch_turn)\b/,
  )
  const name = trace[0]?.replace(/^at (\S+).*$/, '$1') ?? '?'
  return `${title}\nEIP is at ${name}\n${where()}\nCall Trace:\n ${trace.slice(0, 12).join('\n ')}\n`
}

/** panic - stop the whole machine. `report`: more lines for the dump. @context any */
export function panic(why: string, report = ''): never {
  // Under control the exception ends the run, and the explorer tells the story.
  if (boot.controlled === true) throw new KernelPanic(why)
  Error.stackTraceLimit = PANIC_FRAMES
  const error = new KernelPanic(why)
  publish_panic(dump(`Kernel panic - ${why}${report}`, error))
  throw error
}

/** BUG_ON - a broken invariant stops the machine, with two words that name it. */
export function BUG_ON(condition: boolean, words: string): void {
  if (condition) panic(`BUG: ${words}`)
}

/** oops - an exception that no kernel code caught. */
export function oops(error: unknown): void {
  const e = error instanceof Error ? error : new Error(String(error))
  publish_panic(dump(`Oops: ${e.name}: ${e.message}`, e))
}

/** cpu_resume - registers of a CPU that goes on in a machine that was halted: interrupts on, nothing running. */
export function cpu_resume(): void {
  cpu_reset()
  fetch_and(AREA, ~(1 << VEC_HALT))
  i32[IF] = 1
}

/** cpu_reset - registers at power-on. */
export function cpu_reset(): void {
  i32[IF] = 0
  i32[PREEMPT] = 0
  i32[PRIORITY] = PRIORITY_NONE
  i32[CONTEXT] = SYSTEM
  f64[CLOCK] = now_ns()
}
