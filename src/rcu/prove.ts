/**
 * prove.ts - CONFIG_PROVE_RCU: who reads what, and whether it is there for as long as it is read. On with lockdep.
 *
 * Each CPU keeps the read-side sections that it is in, and the pointers that were fetched in them. Whoever frees an object
 * looks whether another one reads it still: that is reported where the object is freed, whether or not the reader looks at it
 * once more. Why it was too early can be told as well, by who frees: a callback of the reader's flavour, of the other one, or
 * nobody who waited.
 *
 * The lists belong to their CPU; others read them without a lock, which only a machine under control may do: there one CPU
 * runs at a time. In the other two ways the sections are counted, and nobody looks at the lists of others.
 *
 * @unwatched - what is looked at here is no access of the code that runs.
 */
import { access_hooks, bytes, type Layout, layout, Struct } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC, describe_addr } from '../abi/section.js'
import { mark_written } from '../arch/atomic.js'
import { boot, PROVE } from '../arch/boot.js'
import { bug } from '../arch/bug.js'
import { CPU_CONTEXT, CPU_IF, CPU_PREEMPT, CPU_RCU, cpu_area, cpu_id, HARDIRQ, SOFTIRQ } from '../arch/cpu.js'
import { hz, JIFFIES, num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { slab_hooks } from '../mm/slab.js'
import { SOFTIRQ_MASK } from '../sync/preempt.js'

const i32 = RAM.i32
const AREA = cpu_area(Math.max(cpu_id, 0))
const NESTING = (AREA + CPU_RCU) >> 2
const CONTEXT = (AREA + CPU_CONTEXT) >> 2
const PREEMPT = (AREA + CPU_PREEMPT) >> 2
const IF = (AREA + CPU_IF) >> 2

/** The flavours; a reader in a softirq, or with softirqs off, is one of both. */
export const FLAVOUR_RCU = 1
export const FLAVOUR_BH = 2

/** Pointers that are remembered of one CPU's sections. */
const MAX_FETCHED = 24
// words of a list: how many pointers, flavour whose callbacks are called now, its last grace period, then the pointers
const [FETCHED, INVOKING, PERIOD, FIRST] = [0, 1, 2, 4]
// words of a pointer: itself, flavours of its reader, section, context, grace periods of both flavours when it was fetched
const [POINTER, FLAVOURS, SECTION, IN, PERIOD_RCU, PERIOD_BH, POINTER_WORDS] = [0, 1, 2, 3, 4, 5, 6]
const LIST_BYTES = (FIRST + MAX_FETCHED * POINTER_WORDS) * 4

class rcu_readers extends Struct {
  declare list: number
}
const READERS: Layout<rcu_readers> = layout('rcu_readers', rcu_readers, { list: bytes(LIST_BYTES) })
const readers = DEFINE_PER_CPU('rcu_readers', READERS)
const MINE = readers.mine.list >> 2

/** Where rcupdate.ts keeps its flavours: addresses of their control blocks, whose first word is `cur`, and offsets in them. */
export interface Flavours {
  rcu: number
  bh: number
  completed: number
  cpumask: number
}
const known: { flavours: Flavours | null } = { flavours: null }

/** prove_flavours - @context module load */
export function prove_flavours(flavours: Flavours): void {
  known.flavours = flavours
}

function control(flavour: number): number {
  return (flavour === FLAVOUR_BH ? known.flavours?.bh : known.flavours?.rcu) ?? 0
}

/** The grace period of a flavour that runs, or ran last. */
function current_period(flavour: number): number {
  return i32[control(flavour) >> 2]!
}
function completed_period(flavour: number): number {
  return i32[(control(flavour) + (known.flavours?.completed ?? 0)) >> 2]!
}

function context(): number {
  const c = i32[CONTEXT]! & 7
  return c === HARDIRQ ? 2 : c === SOFTIRQ ? 1 : 0
}

/** prove_enter - a read-side section begins. */
export function prove_enter(): void {
  i32[NESTING]!++
}

/** prove_leave - the innermost one ends, and with it what was fetched in it. */
export function prove_leave(): void {
  if (i32[NESTING]! <= 0) bug('rcu', 'rcu_read_unlock without rcu_read_lock')
  const sections = --i32[NESTING]!
  let n = i32[MINE + FETCHED]!
  while (n > 0 && i32[MINE + FIRST + (n - 1) * POINTER_WORDS + SECTION]! > sections) n--
  i32[MINE + FETCHED] = n
}

/** prove_fetch - rcu_dereference of the word at `from` has given `pointer`. @context any */
export function prove_fetch(pointer: number, from: number): void {
  if (i32[PREEMPT] === 0 && i32[IF] !== 0)
    bug('rcu', `${describe_addr(from) ?? `0x${from.toString(16)}`} is dereferenced outside of every reader`)
  prove_follow(pointer)
}

/** prove_follow - a pointer that is published by RCU was read: in a section it is followed. @returns the pointer */
export function prove_follow(pointer: number): number {
  const n = i32[MINE + FETCHED]!
  if (pointer === 0 || i32[NESTING] === 0 || n >= MAX_FETCHED) return pointer
  const at = MINE + FIRST + n * POINTER_WORDS
  i32[at + POINTER] = pointer
  i32[at + FLAVOURS] = FLAVOUR_RCU | ((i32[PREEMPT]! & SOFTIRQ_MASK) !== 0 ? FLAVOUR_BH : 0)
  i32[at + SECTION] = i32[NESTING]!
  i32[at + IN] = context()
  i32[at + PERIOD_RCU] = current_period(FLAVOUR_RCU)
  i32[at + PERIOD_BH] = current_period(FLAVOUR_BH)
  i32[MINE + FETCHED] = n + 1
  mark_written(MINE << 2, LIST_BYTES)
  return pointer
}

/** prove_invoke - this CPU calls callbacks of a flavour now; 0: no more. */
export function prove_invoke(flavour: number): void {
  i32[MINE + INVOKING] = flavour
  i32[MINE + PERIOD] = completed_period(flavour)
  mark_written(MINE << 2, LIST_BYTES)
}

// ---- grace periods that do not end --------------------------------------------------------------------------------------

/** Seconds without an end after which a grace period is said to be stalled (RCU_SECONDS_TILL_STALL_CHECK of later kernels). */
const STALL_SECONDS = 10

class rcu_stall extends Struct {
  declare words: number
}
/** After how many jiffies; when the grace period that runs began, for each flavour. */
const STALL_LAYOUT: Layout<rcu_stall> = layout('rcu_stall', rcu_stall, { words: bytes(4 * 4) })
const STALL = DEFINE_STATIC('rcu_stall', STALL_LAYOUT).words >> 2

function now(): number {
  return i32[JIFFIES >> 2]!
}

/** prove_stall_after - another time than ten seconds; where time is short. @context boot */
export function prove_stall_after(ticks: number): void {
  i32[STALL] = ticks
}

/** prove_begins - a grace period begins. @locks the flavour's */
export function prove_begins(flavour: number): void {
  i32[STALL + flavour] = now()
  mark_written(STALL << 2, 16)
}

/** prove_stalls - a tick: does a grace period wait too long? @context hardirq */
export function prove_stalls(): void {
  for (const flavour of [FLAVOUR_RCU, FLAVOUR_BH]) {
    const since = (now() - i32[STALL + flavour]!) | 0
    if (current_period(flavour) === completed_period(flavour) || i32[STALL] === 0 || since <= i32[STALL]!) continue
    const mask = i32[(control(flavour) + (known.flavours?.cpumask ?? 0)) >> 2]!
    const cpus = Array.from({ length: 32 }, (_, cpu) => cpu).filter(cpu => (mask & (1 << cpu)) !== 0)
    const name = flavour === FLAVOUR_BH ? 'rcu_bh' : 'rcu'
    const who = `CPU ${cpus.join(', ')} ${cpus.length === 1 ? 'has' : 'have'}`
    bug('rcu', `a grace period of ${name} does not end: for ${since} ticks ${who} passed no quiescent state`)
  }
}

// ---- what is freed -------------------------------------------------------------------------------------------------------

interface Watcher {
  unordered(view: Int32Array, at: number, bytes: number): { actor: number; step: number } | null
}

function object_at(addr: number): string {
  return describe_addr(addr)?.replace(/\..*$/, '') ?? `0x${addr.toString(16)}`
}

/** An object is freed: does anybody still read it, or has read it with nothing that orders him before this? */
function check_freed(addr: number, size: number): void {
  for (let cpu = num_cpus() - 1; cpu >= 0; cpu--) {
    const at = fetched_by(cpu, addr, size, i32[(readers.cpu(cpu).list >> 2) + FETCHED]!)
    // Who frees what he found himself knows what he does; who frees it on top of the reader does not.
    if (at >= 0 && (cpu !== cpu_id || i32[at + IN] !== context())) report(addr, cpu, at, -1)
  }
  const other = (globalThis as { __softnet?: Watcher }).__softnet?.unordered(i32, addr, size) ?? null
  if (other === null) return
  const at = other.actor < num_cpus() ? fetched_by(other.actor, addr, size, MAX_FETCHED) : -1
  if (at >= 0) report(addr, other.actor, at, other.step)
  const what = object_at(addr)
  bug(
    'use after free',
    `${what} is freed, and nothing orders what CPU ${other.actor} did with it before that`,
    other.step,
  )
}

/** The entry of an object among the first `n` of a CPU's list, or -1. What lies behind those in use is of sections that ended. */
function fetched_by(cpu: number, addr: number, size: number, n: number): number {
  const list = (readers.cpu(cpu).list >> 2) + FIRST
  for (let at = list; at < list + n * POINTER_WORDS; at += POINTER_WORDS) {
    const pointer = i32[at + POINTER]!
    if (pointer >= addr && pointer < addr + size) return at
  }
  return -1
}

/** `step`: where the reader touched it, when his section has ended; or -1. */
function report(addr: number, cpu: number, at: number, step: number): never {
  const what = object_at(addr)
  const reader = cpu === cpu_id ? 'what is interrupted' : `CPU ${cpu}`
  const reads = step < 0 ? `${reader} still reads it` : `nothing orders the end of ${reader}'s reading before that`
  const flavour = i32[MINE + INVOKING]!
  if (flavour === 0) bug('rcu', `${what} is freed without a grace period, and ${reads}`, step)
  if ((i32[at + FLAVOURS]! & flavour) === 0)
    bug('rcu', `wrong flavour: ${what} is freed by call_rcu_bh and read under rcu_read_lock, and ${reads}`, step)
  const fetched = i32[at + (flavour === FLAVOUR_BH ? PERIOD_BH : PERIOD_RCU)]!
  if (((fetched - i32[MINE + PERIOD]!) | 0) >= 0)
    bug('rcu', `${what} is freed, and ${reader} found it when the grace period had begun: it was still published`, step)
  bug('rcu', `${what} is freed too early: its grace period has ended, and ${reads}`, step)
}

/** prove_reset - nobody reads. @context boot */
export function prove_reset(ncpus: number): void {
  i32.fill(0, STALL, STALL + 4)
  prove_stall_after(STALL_SECONDS * hz())
  for (let cpu = 0; cpu < ncpus; cpu++)
    i32.fill(0, readers.cpu(cpu).list >> 2, (readers.cpu(cpu).list + LIST_BYTES) >> 2)
}

if (PROVE && boot.controlled === true) {
  slab_hooks.freed = check_freed
  access_hooks.fetched = prove_follow // fields that are declared rcu()
}
