/**
 * lockdep.ts - proves from the order in which locks are taken that they can deadlock, without the deadlock.
 *
 * A class is all locks of one field of one struct. Each CPU keeps what it holds; a lock that is taken draws an edge from the
 * one that was taken before it, and what is held, or taken in an interrupt, marks its class. lib/lockgraph.ts has the rules.
 * It goes on after a report: each pair of classes is reported once.
 *
 * On when the machine is under control, or when it boots with it (`boot.lockdep`). The tables are guarded by GRAPH_LOCK, a
 * word of its own: lockdep's own lock is none of those it watches.
 *
 * @unwatched - what it writes down is no access of the code that runs, and no interrupt comes in between.
 */
import { bytes, type Layout, layout, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC, describe_addr } from '../abi/section.js'
import { mark_written, quiet_ops } from '../arch/atomic.js'
import { boot, LOCKDEP } from '../arch/boot.js'
import { CPU_CONTEXT, CPU_CURRENT, CPU_IF, cpu_area, cpu_id, HARDIRQ, SOFTIRQ, set_entry } from '../arch/cpu.js'
import { KernelPanic } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { jhash_name } from '../lib/jhash.js'
import {
  ENABLED,
  ENABLED_READ,
  GRAPH_WORDS,
  lockgraph_add,
  lockgraph_circle,
  lockgraph_class,
  lockgraph_instance,
  lockgraph_irq,
  lockgraph_reset,
  lockgraph_use,
  SOFTIRQ_SHIFT,
  TAKEN_READ_RECURSIVE,
  TAKEN_WRITE,
  USED_IN,
  USED_IN_READ,
} from '../lib/lockgraph.js'
import { in_softirq } from './preempt.js'

const i32 = RAM.i32
const u8 = RAM.u8
const AREA = cpu_area(Math.max(cpu_id, 0))
const MAX_LOCK_DEPTH = 48
const HELD_WORDS = 6
const MAX_TEXT = 4096
const MAX_KNOWN = 64

class lockdep_tables extends Struct {
  declare lock: number
  declare reports: number
  declare graph: number
  /** Text of the reports, a line each, as far as there is room. */
  declare known: number
  declare length: number
  declare text: number
}
const TABLES: Layout<lockdep_tables> = layout('lockdep', lockdep_tables, {
  lock: word,
  reports: word, // how many there were
  graph: bytes(GRAPH_WORDS * 4),
  known: bytes(MAX_KNOWN * 4), // hashes of what was reported
  length: word,
  text: bytes(MAX_TEXT),
})
const tables = DEFINE_STATIC('lockdep', TABLES)
const GRAPH_AT = tables.graph >> 2
const KNOWN = tables.known >> 2
const REPORTS = (tables.addr + TABLES.offset('reports')) >> 2
const LENGTH = (tables.addr + TABLES.offset('length')) >> 2

class held_locks extends Struct {
  declare depth: number
  /** lock, class, taken, context, task, trylock */
  declare held: number
}
const HELD: Layout<held_locks> = layout('held_locks', held_locks, {
  depth: word,
  held: bytes(MAX_LOCK_DEPTH * HELD_WORDS * 4),
})
const mine = DEFINE_PER_CPU('held_locks', HELD).mine
const DEPTH = (mine.addr + HELD.offset('depth')) >> 2
const STACK = mine.held >> 2

/** The graph's words, as lib wants them. */
const graph = new Int32Array(RAM.buffer, GRAPH_AT * 4, GRAPH_WORDS)

/** LockdepReport - what was found, thrown where the machine is under control. */
export class LockdepReport extends KernelPanic {
  override name = 'LockdepReport'
  readonly detector = 'lock order'
}

/** Texts of this thread's reports, for tests and reports of the host. */
export const lockdep_log: string[] = []

// ---- classes ------------------------------------------------------------------------------------------------------------

const names = new Map<number, string>()

/** The class of a lock: where it is, without the number of the object. */
function class_name(lock: number): string {
  let name = names.get(lock)
  if (name === undefined) {
    name = (describe_addr(lock) ?? `lock at 0x${lock.toString(16)}`).replace(/\[\d+\]/g, '')
    names.set(lock, name)
  }
  return name
}

/** `subclass`: locks of one class that are taken with one of them held, in an order that holds. Kept in the lowest bits. */
function class_of(lock: number, subclass: number): number {
  return lockgraph_class(graph, jhash_name(`${class_name(lock)}/${subclass}`), lock | subclass)
}

function class_text(cls: number): string {
  const instance = lockgraph_instance(graph, cls)
  const subclass = instance & 3
  return `${class_name(instance & ~3)}${subclass === 0 ? '' : `/${subclass}`}`
}

// ---- reports --------------------------------------------------------------------------------------------------------------

/** held_text - the locks that this CPU holds, in words. */
export function held_text(): string {
  const held: string[] = []
  for (let k = 0; k < locks_held(); k++) held.push(class_name(i32[STACK + k * HELD_WORDS]!))
  return held.length === 0 ? 'none' : held.join(', ')
}

/** locks_held - how many there are. */
export function locks_held(): number {
  return i32[DEPTH]!
}

/** lockdep_holds - does this CPU hold a lock? */
export function lockdep_holds(lock: number): boolean {
  for (let k = 0; k < i32[DEPTH]!; k++) if (i32[STACK + k * HELD_WORDS] === lock) return true
  return false
}

/** Each finding is told once. */
function is_known(hash: number): boolean {
  for (let k = 0; k < i32[REPORTS]! && k < MAX_KNOWN; k++) if (i32[KNOWN + k] === hash) return true
  if (i32[REPORTS]! < MAX_KNOWN) i32[KNOWN + i32[REPORTS]!] = hash
  return false
}

function report(what: string): void {
  const held = held_text()
  if (is_known(jhash_name(what))) return
  i32[REPORTS]!++
  const text = `${what}. Held by CPU ${cpu_id}: ${held}`
  lockdep_log.push(text)
  log_text(`${text}\n`)
  if (boot.controlled === true) throw new LockdepReport(text)
}

/** For the host, which reads RAM. */
function log_text(text: string): void {
  for (let k = 0; k < text.length && i32[LENGTH]! < MAX_TEXT; k++)
    u8[tables.text + i32[LENGTH]!++] = text.charCodeAt(k) & 0x7f
}

function arrows(path: readonly number[]): string {
  return path.map(class_text).join(' -> ')
}

// ---- what is held -----------------------------------------------------------------------------------------------------------

/** Hardirq 2, softirq 1, process 0: locks of different contexts draw no edges. */
function irq_context(): number {
  const context = i32[(AREA + CPU_CONTEXT) >> 2]! & 7
  return context === HARDIRQ ? 2 : context === SOFTIRQ ? 1 : 0
}

function current(): number {
  return i32[(AREA + CPU_CURRENT) >> 2]!
}

/** Held by the CPU, or by the task that runs now. */
function is_ours(at: number): boolean {
  return i32[at + 4] === 0 || i32[at + 4] === current()
}

function graph_lock(): void {
  if (boot.controlled !== true) while (quiet_ops.cmpxchg(tables.addr, 0, 1) !== 0);
}

function graph_unlock(): void {
  if (boot.controlled !== true) quiet_ops.store(tables.addr, 0)
  else {
    mark_written(tables.graph, GRAPH_WORDS * 4)
    mark_written(mine.addr, HELD.size)
  }
}

/**
 * lockdep_acquire - before a lock is taken. `taken`: TAKEN_*. `trylock`: it does not wait, so it closes no circle. `sleeps`: it
 * is the task's, which may be switched away with it; a spinlock is the CPU's.
 */
export function lockdep_acquire(lock: number, taken: number, trylock: boolean, sleeps = false, subclass = 0): void {
  if (!LOCKDEP) return
  const depth = i32[DEPTH]!
  const context = irq_context()
  graph_lock()
  const cls = class_of(lock, subclass)
  const said = cls < 0 ? null : validate(cls, taken, trylock, context, depth)
  graph_unlock()
  if (said !== null) report(said)
  if (depth >= MAX_LOCK_DEPTH) return
  const at = STACK + depth * HELD_WORDS
  i32[at] = lock
  i32[at + 1] = cls
  i32[at + 2] = taken
  i32[at + 3] = context
  i32[at + 4] = sleeps ? current() : 0
  i32[at + 5] = trylock ? 1 : 0
  i32[DEPTH] = depth + 1
}

function validate(cls: number, taken: number, trylock: boolean, context: number, depth: number): string | null {
  return (
    mark_acquired(cls, taken, trylock, context) ??
    (trylock ? null : check_held(cls, taken, context, depth)) ??
    add_edges(cls, taken, context, depth)
  )
}

/** How this acquisition uses its class: in an interrupt, or with interrupts on. */
function mark_acquired(cls: number, taken: number, trylock: boolean, context: number): string | null {
  const read = taken !== TAKEN_WRITE
  let said: string | null = null
  // A trylock in an interrupt does not wait for the code below it.
  if (!trylock && context === 2) said = mark(cls, read ? USED_IN_READ : USED_IN, taken, false)
  if (!trylock && context === 1) said ??= mark(cls, read ? USED_IN_READ : USED_IN, taken, true)
  if (i32[(AREA + CPU_IF) >> 2] !== 0) {
    said ??= mark(cls, read ? ENABLED_READ : ENABLED, taken, false)
    if (!in_softirq()) said ??= mark(cls, read ? ENABLED_READ : ENABLED, taken, true)
  }
  return said
}

function mark(cls: number, bit: number, taken: number, softirq: boolean): string | null {
  const path = lockgraph_use(graph, cls, softirq ? bit << SOFTIRQ_SHIFT : bit, taken)
  if (path === null || path === 'known') return null
  const irq = softirq ? 'softirq' : 'hardirq'
  if (path.length === 1)
    return `inconsistent lock state: ${class_text(cls)} is taken in ${irq}s, and held with ${irq}s on`
  const ordered = bit === ENABLED || bit === ENABLED_READ ? [...path].reverse() : path
  return (
    `possible irq lock inversion dependency detected: ${class_text(ordered[0]!)} is taken in ${irq}s, ` +
    `${class_text(ordered.at(-1)!)} is held with ${irq}s on, and ${arrows(ordered)}`
  )
}

/** The same class again: only a recursive reader may, behind readers. */
function check_held(cls: number, taken: number, context: number, depth: number): string | null {
  for (let k = 0; k < depth; k++) {
    const at = STACK + k * HELD_WORDS
    if (i32[at + 1] !== cls || !is_ours(at) || i32[at + 3]! > context) continue
    if (taken === TAKEN_READ_RECURSIVE && i32[at + 2] !== TAKEN_WRITE) continue
    return `possible recursive locking detected: ${class_text(cls)} is wanted, and one of its class is held`
  }
  return null
}

/** Edges from what is held, down to the last one that was waited for: it has drawn those before it. */
function add_edges(cls: number, taken: number, context: number, depth: number): string | null {
  for (let k = depth - 1; k >= 0; k--) {
    const at = STACK + k * HELD_WORDS
    if (i32[at + 3] !== context) break
    if (!is_ours(at)) continue
    const from = i32[at + 1]!
    const held = i32[at + 2]!
    if (from !== cls && lockgraph_add(graph, from, held, cls, taken)) {
      const circle = lockgraph_circle(graph, from, held, cls, taken)
      if (circle !== null)
        return (
          `possible circular locking dependency detected: ${class_text(cls)} is wanted with ${class_text(from)} held, ` +
          `but elsewhere ${arrows(circle)}`
        )
      const irq = lockgraph_irq(graph, from, held, cls, taken)
      if (irq !== null) {
        const kind = irq.softirq ? 'softirq' : 'hardirq'
        return (
          `${kind}-safe -> ${kind}-unsafe lock order detected: ${class_text(irq.path[0]!)} is taken in ${kind}s, ` +
          `${class_text(irq.path.at(-1)!)} is held with ${kind}s on, and ${arrows(irq.path)}`
        )
      }
    }
    if (i32[at + 5] === 0) break
  }
  return null
}

/** lockdep_release - a lock is given back; in any order. */
export function lockdep_release(lock: number): void {
  if (!LOCKDEP) return
  const depth = i32[DEPTH]!
  for (let k = depth - 1; k >= 0; k--) {
    if (i32[STACK + k * HELD_WORDS] !== lock || !is_ours(STACK + k * HELD_WORDS)) continue
    for (let at = STACK + k * HELD_WORDS; at < STACK + (depth - 1) * HELD_WORDS; at++) i32[at] = i32[at + HELD_WORDS]!
    i32[DEPTH] = depth - 1
    return
  }
  report(`bad unlock balance detected: ${class_name(lock)} is given back, and not held`)
}

/** lockdep_init - a lock is made anew: it must not be held. */
export function lockdep_init(lock: number): void {
  if (!LOCKDEP) return
  for (let k = 0; k < i32[DEPTH]!; k++)
    if (i32[STACK + k * HELD_WORDS] === lock) {
      report(`held lock initialised: ${class_name(lock)}`)
      return
    }
}

// ---- interrupts that are turned on -------------------------------------------------------------------------------------------

/** lockdep_hardirqs_on - what is held now is held with interrupts on. Before they are. */
export function lockdep_hardirqs_on(): void {
  mark_held(false)
  if (!in_softirq()) mark_held(true)
}

/** lockdep_softirqs_on - the same for softirqs. */
export function lockdep_softirqs_on(): void {
  if (LOCKDEP && i32[(AREA + CPU_IF) >> 2] !== 0) mark_held(true)
}

function mark_held(softirq: boolean): void {
  const depth = i32[DEPTH]!
  let said: string | null = null
  graph_lock()
  for (let k = 0; k < depth; k++) {
    const at = STACK + k * HELD_WORDS
    const cls = i32[at + 1]!
    if (cls < 0 || !is_ours(at)) continue
    said ??= mark(cls, i32[at + 2] === TAKEN_WRITE ? ENABLED : ENABLED_READ, i32[at + 2]!, softirq)
  }
  graph_unlock()
  if (said !== null) report(said)
}

// ---- for tests ------------------------------------------------------------------------------------------------------------

/** lockdep_reports - how often something was found. */
export function lockdep_reports(): number {
  return i32[REPORTS]!
}

/** lockdep_reset - nothing was ever taken. */
export function lockdep_reset(): void {
  lockgraph_reset(graph)
  mark_written(tables.graph, GRAPH_WORDS * 4)
  i32[REPORTS] = 0
  i32[LENGTH] = 0
  i32[DEPTH] = 0
  lockdep_log.length = 0
}

if (LOCKDEP) set_entry({ irqs_on: () => void lockdep_hardirqs_on() as undefined })
