/**
 * lockgraph.ts - which lock classes were taken under which others, and how; the rules by which that proves a deadlock.
 *
 * The rules are those of Linux's lockdep since recursive readers became part of it (5.10; Documentation/locking/
 * lockdep-design.rst): an edge A -> B ("B was taken with A held") is kept by whether A was held exclusively (E) or shared
 * (S), and whether B was wanted by a recursive reader (R) or not (N). A path is strong when no edge *R is followed by an
 * edge S*: only then can each of its waits really block. A strong circle is a deadlock, and so is a strong path from a class
 * that interrupts take to one that is held with interrupts on.
 *
 * All state is in the words given, so that it lies in RAM and is put back with it.
 */

export const MAX_CLASSES = 256

// how a lock is taken
export const TAKEN_WRITE = 0
/** A reader that another one may not slip in behind a waiting writer (rwsem). */
export const TAKEN_READ = 1
/** A recursive reader: it goes in whenever another reader is in (rwlock). */
export const TAKEN_READ_RECURSIVE = 2

// usage of a class: bits for hardirq, and the same shifted by SOFTIRQ_SHIFT for softirq
export const USED_IN = 1
export const USED_IN_READ = 2
export const ENABLED = 4
export const ENABLED_READ = 8
export const SOFTIRQ_SHIFT = 4

// kinds of an edge, a mask
const SR = 1
const ER = 2
const SN = 4
const EN = 8
const FROM_SHARED = SR | SN
const TO_NONRECURSIVE = SN | EN

// words of a class
const HASH = 0
const USAGE = 1
const INSTANCE = 2
const WORDS = 4

const EDGES = MAX_CLASSES * WORDS
/** Words that a graph takes. */
export const GRAPH_WORDS = EDGES + (MAX_CLASSES * MAX_CLASSES) / 4

/** lockgraph_reset - forget everything. */
export function lockgraph_reset(g: Int32Array): void {
  g.fill(0)
}

/** lockgraph_class - the class whose name has this hash (not 0), made when it is new; -1: no room. `instance`: one of its locks. */
export function lockgraph_class(g: Int32Array, hash: number, instance: number): number {
  for (let k = 0; k < MAX_CLASSES; k++) {
    const slot = (hash + k) & (MAX_CLASSES - 1)
    if (g[slot * WORDS + HASH] === hash) return slot
    if (g[slot * WORDS + HASH] !== 0) continue
    g[slot * WORDS + HASH] = hash
    g[slot * WORDS + INSTANCE] = instance
    return slot
  }
  return -1
}

export function lockgraph_instance(g: Int32Array, cls: number): number {
  return g[cls * WORDS + INSTANCE]!
}

export function lockgraph_usage(g: Int32Array, cls: number): number {
  return g[cls * WORDS + USAGE]!
}

function edge(g: Int32Array, from: number, to: number): number {
  const at = from * MAX_CLASSES + to
  return (g[EDGES + (at >> 2)]! >>> ((at & 3) * 8)) & 255
}

/** The kind of the edge between two locks as they are held and wanted. */
function kind(held: number, wanted: number): number {
  return held === TAKEN_WRITE ? (wanted === TAKEN_READ_RECURSIVE ? ER : EN) : wanted === TAKEN_READ_RECURSIVE ? SR : SN
}

/** lockgraph_add - remember that `to` was taken with `from` held. @returns false when that was known */
export function lockgraph_add(g: Int32Array, from: number, held: number, to: number, wanted: number): boolean {
  const bit = kind(held, wanted)
  if ((edge(g, from, to) & bit) !== 0) return false
  const at = from * MAX_CLASSES + to
  g[EDGES + (at >> 2)]! |= bit << ((at & 3) * 8)
  return true
}

/**
 * Walk the strong paths from `start`, forwards or backwards. `only_xr`: the path so far ends in an edge *R (backwards: begins
 * with an edge S*), so that the next one must be E* (*N). `visit` says when to stop.
 * @returns the classes of the path from the start to where it stopped, or null
 */
function walk(
  g: Int32Array,
  start: number,
  only_xr: boolean,
  backwards: boolean,
  visit: (cls: number, only_xr: boolean, steps: number) => boolean,
): number[] | null {
  const seen = new Uint8Array(MAX_CLASSES) // bit 0: with only_xr, bit 1: without
  const queue: { cls: number; xr: boolean; from: number }[] = [{ cls: start, xr: only_xr, from: -1 }]
  seen[start] = only_xr ? 1 : 2
  for (let k = 0; k < queue.length; k++) {
    const { cls, xr } = queue[k]!
    if (visit(cls, xr, k)) return path_to(queue, k)
    for (let other = 0; other < MAX_CLASSES; other++) {
      let dep = backwards ? edge(g, other, cls) : edge(g, cls, other)
      if (dep === 0) continue
      if (xr) dep &= backwards ? TO_NONRECURSIVE : ~FROM_SHARED
      if (dep === 0) continue
      const next = backwards ? (dep & (ER | EN)) === 0 : (dep & TO_NONRECURSIVE) === 0
      const bit = next ? 1 : 2
      if ((seen[other]! & bit) !== 0 || (seen[other]! & 2) !== 0) continue
      seen[other]! |= bit
      queue.push({ cls: other, xr: next, from: k })
    }
  }
  return null
}

function path_to(queue: readonly { cls: number; from: number }[], at: number): number[] {
  const path: number[] = []
  for (let k = at; k >= 0; k = queue[k]!.from) path.unshift(queue[k]!.cls)
  return path
}

/** lockgraph_circle - would `to` taken with `from` held close a circle that blocks? @returns the way from `to` to `from`, or null */
export function lockgraph_circle(
  g: Int32Array,
  from: number,
  held: number,
  to: number,
  wanted: number,
): number[] | null {
  return walk(g, to, wanted === TAKEN_READ_RECURSIVE, false, (cls, xr) => cls === from && (held === TAKEN_WRITE || !xr))
}

/** What a usage of one side forbids on the other: a reader only collides with writers. */
function excluded(usage: number): number {
  let mask = 0
  for (const shift of [0, SOFTIRQ_SHIFT]) {
    const u = usage >>> shift
    if ((u & USED_IN) !== 0) mask |= (ENABLED | ENABLED_READ) << shift
    if ((u & USED_IN_READ) !== 0) mask |= ENABLED << shift
    if ((u & ENABLED) !== 0) mask |= (USED_IN | USED_IN_READ) << shift
    if ((u & ENABLED_READ) !== 0) mask |= USED_IN << shift
  }
  return mask
}

const READ_BITS = (USED_IN_READ | ENABLED_READ) * (1 + (1 << SOFTIRQ_SHIFT))
const USED_BITS = (USED_IN | USED_IN_READ) * (1 + (1 << SOFTIRQ_SHIFT))

/** The usage that counts at the end of a path: after *R (before S*) what readers do does not block. */
function counted(usage: number, xr: boolean): number {
  return xr ? usage & ~READ_BITS : usage
}

export interface IrqConflict {
  /** From the class that interrupts take to the one that is held with them on. */
  path: number[]
  softirq: boolean
}

/**
 * lockgraph_irq - would `to` taken with `from` held lead from a class that interrupts take to one that is held with
 * interrupts on?
 */
export function lockgraph_irq(
  g: Int32Array,
  from: number,
  held: number,
  to: number,
  wanted: number,
): IrqConflict | null {
  let used = 0
  walk(g, from, held !== TAKEN_WRITE, true, (cls, xr) => {
    used |= counted(lockgraph_usage(g, cls), xr) & USED_BITS
    return false
  })
  const forbidden = excluded(used)
  if (forbidden === 0) return null
  const ahead = walk(
    g,
    to,
    wanted === TAKEN_READ_RECURSIVE,
    false,
    (cls, xr) => (counted(lockgraph_usage(g, cls), xr) & forbidden) !== 0,
  )
  if (ahead === null) return null
  const unsafe = lockgraph_usage(g, ahead.at(-1)!)
  const behind = walk(
    g,
    from,
    held !== TAKEN_WRITE,
    true,
    (cls, xr) => (excluded(unsafe) & counted(lockgraph_usage(g, cls), xr) & USED_BITS) !== 0,
  )
  return { path: [...(behind ?? [from]).reverse(), ...ahead], softirq: (unsafe & 15 & forbidden) === 0 }
}

/**
 * lockgraph_use - a class is used in a new way. @returns the path of a conflict (one class long when it is its own usage), or
 * null; 'known' when nothing is new
 */
export function lockgraph_use(g: Int32Array, cls: number, bit: number, taken: number): number[] | 'known' | null {
  const usage = lockgraph_usage(g, cls)
  if ((usage & bit) === bit) return 'known'
  g[cls * WORDS + USAGE] = usage | bit
  const forbidden = excluded(bit)
  if ((usage & forbidden) !== 0) return [cls]
  const enabled = (bit & ~USED_BITS) !== 0
  const xr = enabled ? taken !== TAKEN_WRITE : taken === TAKEN_READ_RECURSIVE
  const clash = (other: number, only_xr: boolean, steps: number): boolean =>
    steps > 0 && (counted(lockgraph_usage(g, other), only_xr) & forbidden) !== 0
  return walk(g, cls, xr, enabled, clash)
}
