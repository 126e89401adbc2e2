/**
 * turnstile.ts - one actor runs at a time: the one whose own clock is furthest behind.
 *
 * Actors are the CPUs (0 to 31), the board (32) and the host (33). Each has a clock in cycles and a state:
 *
 *   +0  clock   cycles, f64: how far it has come                    +16 state   off, ready, or blocked
 *   +8  alarm   cycles, f64: a blocked actor goes on by itself then  +20 thread  the thread that runs it
 *   +24 why     what a blocked actor waits for                       +32 gate    of a thread: 1 when the turn is one of its actors'
 *   +28 depth   at how many locks it stands: an interrupt that comes while it stands at one may stand at another
 *   +36 locks   which, the innermost last; in the low bits how an rwlock is wanted
 *
 * Only the actor that has the turn changes any of this, so nothing here is atomic but the gates. It takes the scheduling
 * decision itself, when its clock has passed `LIMIT`, the clock of the next one: at once before it does what others can
 * see (it takes a cache line that is not its own, rings a doorbell, sends an interrupt), and otherwise when it is `SLACK`
 * cycles ahead. Until then a tick costs an addition and a comparison. A thread may run several actors: the board is run by
 * the thread of CPU 0, so a machine of one CPU never hands its turn to another thread. With several CPUs the board may be
 * LAG cycles behind them, as a card is behind a bus. Who is first among equals follows from the seed.
 *
 * What an actor does to others at its own time t reaches them at t: `actor_wake` moves the clock of a blocked one there.
 */
import { wait_on_address, wake_by_address, wasm_ops } from './atomic.js'
import { boot } from './boot.js'
import { HALTING, OFF, POWER, PowerOff } from './power.js'
import { RAM, TURNSTILE } from './ram.js'

// Gates and the power word are no business of the machine's caches, and are looked at as often as the host likes.
const { load, store } = wasm_ops

const i32 = RAM.i32
const f64 = RAM.f64

export const ACTOR_BOARD = 32
export const ACTOR_HOST = 33
export const ACTORS = 34

// words of the turnstile
export const TURN = TURNSTILE
export const TURN_CPUS = TURNSTILE + 4
export const TURN_SEED = TURNSTILE + 8
/** Tries before a thread that waits for its turn sleeps; 0 where the host has fewer cores than there are threads. */
export const TURN_SPIN = TURNSTILE + 12
/** Hash of everything that happened, in order. */
export const TURN_HASH = TURNSTILE + 16
/** Times that the turn went to another thread of the machine. */
export const TURN_HANDOVERS = TURNSTILE + 20
export const TURN_LIMIT = TURNSTILE + 24
export const TURN_NS = TURNSTILE + 32 // ns a cycle, f64
/** Cycles that a CPU may be ahead of another while it does nothing that others can see, f64. */
export const TURN_SLACK = TURNSTILE + 40
/** Cycles that the board may be behind when a CPU does something that others can see, f64. */
export const TURN_LAG = TURNSTILE + 48
/** Cycles by which a CPU may be taken to be later than it is, at random, when it is decided who is next; f64, 0: none. */
export const TURN_STIR = TURNSTILE + 56
export const TURN_TABLE = TURNSTILE + 128
export const ACTOR_SHIFT = 6

// offsets in an actor's record
export const ACTOR_CLOCK = 0
export const ACTOR_ALARM = 8
export const ACTOR_STATE = 16
export const ACTOR_THREAD = 20
export const ACTOR_WHY = 24
export const ACTOR_DEPTH = 28
export const ACTOR_GATE = 32
export const ACTOR_LOCKS = 36
/** So many fit into a record. */
export const MAX_LOCKS = 7

export const ACTOR_OFF = 0
export const ACTOR_READY = 1
export const ACTOR_BLOCKED = 2

// why an actor is blocked
export const WHY_IDLE = 0
export const WHY_LOCK = 1
export const WHY_STOPPED = 2
export const WHY_BUSY = 3

const LIMIT = TURN_LIMIT >> 3
const HASH = TURN_HASH >> 2
const NS = TURN_NS >> 3
const SLACK = TURN_SLACK >> 3
const LAG = TURN_LAG >> 3
const STIR = TURN_STIR >> 3

export function actor_record(actor: number): number {
  return TURN_TABLE + (actor << ACTOR_SHIFT)
}

/** This thread's own: the CPU that it is, or the board. */
const ME = boot.cpu < 0 ? ACTOR_BOARD : boot.cpu
const MY_CLOCK = actor_record(ME) >> 3

/** This thread is in no turn: its machine is off, or halted and being looked at. Then time passes for nobody else. */
let outside = true

/** Actors that this thread runs besides its own, by number; filled before the first turn. */
const hosted: (((now: number) => void) | undefined)[] = []

/** Points that other floors fill: a machine in which nobody can go on says so by its kernel's means. */
export const turnstile_entry = {
  stuck: (why: string): void => {
    throw new Error(`turnstile: ${why}`)
  },
  /** This CPU stands at a lock from now on: is it one that can never be had? */
  stands: (): void => {},
}

/** actor_host - this thread also runs `actor`: `step` does what is due at its clock, and sets its alarm. */
export function actor_host(actor: number, step: (now: number) => void): void {
  hosted[actor] = step
}

/** my_clock_ns - time of this thread's own actor, ns. */
export function my_clock_ns(): number {
  return f64[MY_CLOCK] * f64[NS]
}
/** my_clock - time of this thread's own actor, cycles. */
export function my_clock(): number {
  return f64[MY_CLOCK]
}
/** ns_per_cycle - of this machine's profile. */
export function ns_per_cycle(): number {
  return f64[NS]
}

/** note - mix an event into the hash of the run. Only the actor that has the turn. */
export function note(what: number): void {
  i32[HASH] = Math.imul(i32[HASH] ^ what, 0x01000193) ^ (f64[actor_record(i32[TURN >> 2]) >> 3] | 0)
}

// ---- who is next ----------------------------------------------------------------------------------------------------

/** When an actor wants the turn, cycles; Infinity: it does not. */
function wants(actor: number): number {
  const at = actor_record(actor)
  const state = i32[(at + ACTOR_STATE) >> 2]
  if (state === ACTOR_READY) return f64[at >> 3]
  return state === ACTOR_BLOCKED ? f64[(at + ACTOR_ALARM) >> 3] : Infinity
}

/**
 * As wants, for the order of turns: the board comes when it is LAG cycles behind (and then catches up), or each doorbell and
 * each frame that arrives would cost two hand-overs; and the host comes after it, so that it sees all that was due.
 * A stirred machine takes its CPUs in another order with each seed.
 */
function place(actor: number): number {
  const when = wants(actor)
  if (actor < ACTOR_BOARD) return f64[STIR] === 0 || when === Infinity ? when : when + late(actor, when)
  if (f64[LAG] === 0) return when
  return actor === ACTOR_BOARD ? when + f64[LAG] : when + f64[LAG] + 1
}

/** Who is first among equals: an order that the seed picks, mixed so that it changes from cycle to cycle. */
function rank(actor: number, when: number): number {
  let h = Math.imul(actor + 1, 0x9e3779b1) ^ Math.imul(i32[TURN_SEED >> 2] + (when | 0), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d)
  return h >>> 0
}

/** How much later a CPU seems to come: another amount for each stretch of so many cycles. */
function late(actor: number, when: number): number {
  const stir = f64[STIR]
  return (rank(actor, Math.floor(when / stir)) / 0x100000000) * stir
}

/** The actor whose turn it is, or -1: nobody can go on. Leaves the clock of the next but one in LIMIT. */
function choose(): number {
  const ncpus = i32[TURN_CPUS >> 2]
  const catches_up = i32[TURN >> 2] === ACTOR_BOARD
  let best = -1
  let first = Infinity
  let second = Infinity
  for (let k = 0; k < ncpus + 2; k++) {
    const actor = k < ncpus ? k : ACTOR_BOARD + k - ncpus
    const later = place(actor)
    const when = actor === ACTOR_BOARD && catches_up ? wants(actor) : later
    if (when > first || when === Infinity) {
      if (later < second) second = later
      continue
    }
    const wins = when < first || rank(actor, when) < rank(best, when)
    second = wins ? first : later
    if (!wins) continue
    best = actor
    first = when
  }
  f64[LIMIT] = second
  if (best >= 0) begin(best, wants(best))
  return best
}

/** A blocked actor whose alarm rings goes on at that time. */
function begin(actor: number, when: number): void {
  const at = actor_record(actor)
  f64[at >> 3] = when
  i32[(at + ACTOR_STATE) >> 2] = ACTOR_READY
  i32[TURN >> 2] = actor
}

/** switch_turn - go on with whoever is first; returns when that is this thread's own actor. */
export function switch_turn(): void {
  for (;;) {
    let next = choose()
    if (next < 0) next = nobody()
    if (next === ME) return
    const step = hosted[next]
    if (step === undefined) {
      next = hand_over(next)
      if (next === ME) return
    }
    run_hosted(next)
  }
}

function run_hosted(actor: number): void {
  const at = actor_record(actor)
  i32[(at + ACTOR_STATE) >> 2] = ACTOR_BLOCKED
  hosted[actor]!(f64[at >> 3])
}

/** A machine that halts has nobody left in the end; any other is stuck. */
function nobody(): number {
  if (died() || load(POWER) === HALTING) leave()
  turnstile_entry.stuck('nobody has anything to do, and nothing is due')
  return ME
}

/** The power went: this thread leaves the kernel. */
function leave(): never {
  throw new PowerOff('power off')
}

function gate_of(thread: number): number {
  return actor_record(thread) + ACTOR_GATE
}

/** Give the turn to another thread, and wait until it comes back. @returns whose of our actors it is */
function hand_over(next: number): number {
  if (next !== ACTOR_HOST) i32[TURN_HANDOVERS >> 2]++
  open_gate(next)
  return wait_for_turn()
}

function open_gate(actor: number): void {
  const gate = gate_of(i32[(actor_record(actor) + ACTOR_THREAD) >> 2])
  store(gate, 1)
  wake_by_address(gate, 1)
}

/** wait_for_turn - until the turn is one of this thread's actors'. A machine that died lets everybody go. */
function wait_for_turn(): number {
  const gate = gate_of(ME)
  for (let spins = i32[TURN_SPIN >> 2]; ; spins--) {
    if (i32[gate >> 2] !== 0 && load(gate) !== 0) break
    if (spins > 0) continue
    if (died()) leave()
    wait_on_address(gate, 0, 100)
  }
  store(gate, 0)
  if (died()) leave()
  return i32[TURN >> 2]
}

/** Off, or in a panic: not an orderly halt. */
function died(): boolean {
  const power = load(POWER)
  return power > HALTING || power === OFF
}

// ---- what actors do -------------------------------------------------------------------------------------------------

/** turnstile_enter - a thread's first act: wait for the first turn of its own actor. */
export function turnstile_enter(): void {
  const actor = wait_for_turn()
  outside = false
  if (actor !== ME) {
    run_hosted(actor)
    switch_turn()
  }
}

/** turnstile_leave - this CPU has left the kernel: the turn goes on without it. */
export function turnstile_leave(): void {
  outside = true
  i32[(actor_record(ME) + ACTOR_STATE) >> 2] = ACTOR_OFF
  if (died()) return
  for (;;) {
    const next = choose()
    if (next < 0) {
      open_gate(ACTOR_HOST)
      return
    }
    if (hosted[next] === undefined) {
      open_gate(next)
      return
    }
    run_hosted(next)
  }
}

/** turnstile_freeze - this CPU dies, and with it the machine: it gives the turn to nobody while it writes its dump. */
export function turnstile_freeze(): void {
  outside = true
}

/** actor_wake - what the actor that has the turn does reaches `actor` now. */
export function actor_wake(actor: number, delay: number): void {
  if (outside) return
  const at = actor_record(actor)
  if (i32[(at + ACTOR_STATE) >> 2] !== ACTOR_BLOCKED) return
  const now = f64[actor_record(i32[TURN >> 2]) >> 3] + delay
  if (now > f64[at >> 3]) f64[at >> 3] = now
  i32[(at + ACTOR_STATE) >> 2] = ACTOR_READY
  const when = place(actor)
  if (when < f64[LIMIT]) f64[LIMIT] = when
}

/** actor_alarm - a hosted actor says when it wants the turn next, cycles. */
export function actor_alarm(actor: number, when: number): void {
  f64[(actor_record(actor) + ACTOR_ALARM) >> 3] = when
}

/** actor_off - a hosted actor wants no turn any more, whoever wakes it. */
export function actor_off(actor: number): void {
  i32[(actor_record(actor) + ACTOR_STATE) >> 2] = ACTOR_OFF
}

/** actor_block - this CPU waits until it is woken, or until `cycles` have passed. @returns cycles that passed */
export function actor_block(why: number, cycles = Infinity): number {
  if (outside) return 0
  const at = actor_record(ME)
  const since = f64[MY_CLOCK]
  f64[(at + ACTOR_ALARM) >> 3] = since + cycles
  i32[(at + ACTOR_WHY) >> 2] = why
  i32[(at + ACTOR_STATE) >> 2] = ACTOR_BLOCKED
  if (why === WHY_LOCK) {
    turnstile_entry.stands()
    if (everybody_waits()) turnstile_entry.stuck('no CPU runs that could release a lock')
  }
  switch_turn()
  return f64[MY_CLOCK] - since
}

/** actor_stand - this CPU blocks until `lock` is handed to it, or an interrupt comes. @returns cycles that passed */
export function actor_stand(lock: number): number {
  const at = actor_record(ME) >> 2
  const depth = i32[at + (ACTOR_DEPTH >> 2)]
  if (depth < MAX_LOCKS) i32[at + (ACTOR_LOCKS >> 2) + depth] = lock
  i32[at + (ACTOR_DEPTH >> 2)] = depth + 1
  return actor_block(WHY_LOCK)
}

/** actor_stood - it looks at the lock again, after the interrupts that came. */
export function actor_stood(): void {
  i32[(actor_record(ME) + ACTOR_DEPTH) >> 2]--
}

/** Does no CPU run that could release a lock? */
function everybody_waits(): boolean {
  for (let cpu = 0; cpu < i32[TURN_CPUS >> 2]; cpu++) {
    if (i32[(actor_record(cpu) + ACTOR_STATE) >> 2] === ACTOR_READY) return false
  }
  return true
}

/** turn_of_cpu - is it a CPU that acts, not the board on the same thread? */
export function turn_of_cpu(): boolean {
  return i32[TURN >> 2] === ME
}

/** spend - the clock of this CPU goes on. True when it is further ahead of another's than the machine allows. */
export function spend(cycles: number): boolean {
  const now = f64[MY_CLOCK] + cycles
  f64[MY_CLOCK] = now
  return now >= f64[LIMIT] + f64[SLACK] && !outside
}

/** ahead - is this CPU's clock ahead of another's, so that what others can see of it must wait? */
export function ahead(): boolean {
  return f64[MY_CLOCK] >= f64[LIMIT] && !outside
}
