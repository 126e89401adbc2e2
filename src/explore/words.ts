/**
 * words.ts - the state of a controlled run: one Int32Array that all its threads share.
 *
 * Everything that decides who goes on lies here, so that whoever has the turn can take the decision itself. Only the thread
 * that has the turn touches any of it: nothing is atomic but the gates.
 *
 *   header     what runs, how far it has come, what was found
 *   actors     a record each: state, the operation it is about to do, what it looked at last, its gate
 *   waits      who sleeps on which word (Atomics.wait, waitAsync) or until when (setTimeout)
 *   clocks     a vector clock for each actor
 *   buffers    what each actor has written and memory does not hold yet
 *   known      races that do not end a run any more
 *   claims     what actors say that only they do
 *   trace      a record for each step that was done
 *   plan       whose each step is to be, when a run is replayed
 *   cells      for each word of shared memory that was touched: version, clock, last accesses of each actor
 *   text       messages and places in the source
 */

export const MAX_ACTORS = 16
/** Actors, store buffers and interrupts together: so many bits of a mask. */
export const MAX_UNITS = 31

// ---- header -----------------------------------------------------------------------------------------------------------

export const PHASE = 0
export const ACTORS = 1
export const TURN = 2
/** Steps done in this run at which another actor could have gone on. */
export const STEP = 3
export const MAX_STEPS = 4
/** Four words: the generator of the strategy's choices. */
export const RNG = 8
export const STRATEGY = 12
/** PCT: steps at which the running actor falls behind all others; -1 for none. */
export const CHANGES = 13
export const MAX_CHANGES = 8
export const PLAN_LENGTH = 21
/** Step at which a plan could not be followed, or -1. */
export const DIVERGED = 22
/** Tries before a thread that waits for its gate sleeps. */
export const SPINS = 23
export const CLOCK = 24 // ns, f64 in words 24 and 25
export const DETECT = 26
export const RECORD = 27
/** Places in the source of all accesses; or of steps alone. */
export const RECORD_ALL = 1
export const RECORD_STEPS = 2
/** What was found: FOUND_*, then whose, what address, steps that belong to it. */
export const FOUND = 28
export const FOUND_ACTOR = 29
export const FOUND_OTHER = 30
export const FOUND_ADDRESS = 31
export const FOUND_STEP = 32
export const FOUND_STEP2 = 33
export const HASH = 34
export const PREEMPTIONS = 35
export const HANDOVERS = 36
/** A cell of another generation is an empty one. */
export const GENERATION = 37
export const CELL_COUNT = 38
export const TEXT_AT = 39
export const WAIT_ORDER = 40
/** Times in a row that nobody could go on but by looking once more. */
export const IDLE_ROUNDS = 41
/** Actor that ran last, and how many steps in a row. */
export const LAST = 42
export const IN_A_ROW = 43
/** Looks at an unchanged word after which an actor is taken to wait for its change. */
export const SPIN_LOOKS = 58
/** Times that one was, in all runs. */
export const SPUN = 59
export const ASLEEP = 44 // actors that an exhaustive search need not try now
export const MESSAGE_AT = 45
export const MESSAGE_LENGTH = 46
/** Steps that were decisions: more than one actor could have gone on. */
export const DECISIONS = 47
/** Counted over the whole exploration, for who watches it. */
export const SCHEDULES = 48
export const TOTAL_STEPS = 49 // f64 in words 50 and 51: see totalSteps
export const TOTAL = 50
/** Somebody asked for the time while looking. */
export const ASKED_TIME = 52
export const STOP = 53
export const CUT_SPINS = 54
export const SEED = 55
/** Plain accesses are steps at which another actor may go on. */
export const PLAIN_STEPS = 56
/** Records in the trace: the steps, and when a run is recorded also the plain accesses between them. */
export const TRACED = 60
/** Steps of a plan that fell away, since their actors could not go on. */
export const PLAN_SHIFT = 57

/** In a plan, instead of a unit: from here on turn by turn. */
export const BY_TURNS_FROM_HERE = 31

/** Actors and store buffers of this exploration. */
export const UNITS = 61
/** PCT: a priority for each unit. */
export const PRIORITIES = 64

/** Runs that do not get anywhere, see progress.ts. */
export const PROGRESS = 96
export const PROGRESS_WORDS = 14
/** Step from which on a run is looked at. */
export const LOOK_AT = 96
/** Words touched and actors ended when it was looked at last. */
export const MADE = 97
/** As the strategy says, turn by turn, or one actor alone; and the step since when it is turn by turn. */
export const FAIRNESS = 98
export const FAIR_FROM = 99
export const CHECK_AT = 100
export const PERIOD = 101
export const ATTEMPT = 102
export const ALONE_ACTOR = 103
export const ALONE_FROM = 104
export const ALONE_RECORD = 105
/** First record of the circle, how many it has, and how often it was gone round. */
export const CIRCLE = 106
export const CIRCLE_LENGTH = 107
export const CIRCLE_ROUNDS = 108
/** The first of the words that it changes. */
export const CIRCLE_ADDRESS = 109

/** Races that are known: how many there are in the table; how many of them this run has gone past, and is to, whatever they are. */
export const KNOWN_COUNT = 110
export const PASSED = 111
export const TO_PASS = 112
/** Claims of this run, see claims.ts. */
export const CLAIM_COUNT = 113

export const PHASE_IDLE = 0
export const PHASE_RUN = 1
export const PHASE_ENDED = 2
export const PHASE_QUIT = 3

// how a run ended, in FOUND
export const FOUND_NOTHING = 0
export const FOUND_DEADLOCK = 1
export const FOUND_LOST_WAKEUP = 2
export const FOUND_STALL = 3
export const FOUND_RACE = 4
export const FOUND_EXCEPTION = 5
export const FOUND_INVARIANT = 6
export const FOUND_LIVELOCK = 7
/** No finding: the run was longer than it may be, or an exhaustive search has seen the like. */
export const ENDED_CUT = 8
export const ENDED_REDUNDANT = 9
export const ENDED_STOPPED = 10

// ---- actors -------------------------------------------------------------------------------------------------------------

export const ACTOR_TABLE = 128
export const ACTOR_WORDS = 192

export const A_STATE = 0
export const A_KIND = 1
export const A_ADDRESS = 2
/** The buffer that a plain store is about to go into. */
export const A_BUFFER = 3
export const A_STARTED = 4
/** The entry of the table of waits that a blocked actor sleeps in. */
export const A_WAIT = 5
export const A_RNG = 6 // four words: its Math.random
export const A_LOOKS = 10 // how many there are in the list
export const A_LAST_STEP = 11
/** Its state when the run ended. */
export const A_END = 12
/** Interrupts: where its pending word lies, which bits it would serve now, that it is to take one. */
export const A_IRQ_WORD = 13
export const A_IRQ_MASK = 14
export const A_IRQ_CHOSEN = 15
export const A_IRQ_ADDRESS = 160
/** The step at which it was taken to wait for a change of what it looks at. */
export const A_SPUN_AT = 161
export const A_LOOK = 16 // cell, version, hits: three words each
export const MAX_LOOKS = 48
export const A_GATE = 176 // a line of its own
/** Generation of the last run that its thread has nothing to do with any more: it opens no gate for it. */
export const A_LEFT = 177

export const STATE_OFF = 0
export const STATE_READY = 1
/** In Atomics.wait. */
export const STATE_WAITING = 2
/** Looks at words that do not change. */
export const STATE_SPINNING = 3
/** An async actor whose promises all wait. */
export const STATE_ASYNC = 4

// ---- waits --------------------------------------------------------------------------------------------------------------

export const WAIT_TABLE = ACTOR_TABLE + MAX_ACTORS * ACTOR_WORDS
export const WAIT_WORDS = 10
export const MAX_WAITS = 128

export const W_STATE = 0
export const W_ADDRESS = 1 // -1 for a timer
export const W_ACTOR = 2
export const W_ORDER = 3
export const W_EXPECTED = 4
export const W_ASYNC = 5
export const W_ALARM = 6 // ns, f64
export const W_STEP = 8
export const W_NOTIFIER = 9

export const W_FREE = 0
export const W_ASLEEP = 1
export const W_NOTIFIED = 2
export const W_TIMED_OUT = 3

// ---- clocks, trace, plan, cells, text -----------------------------------------------------------------------------------------

export const CLOCKS = WAIT_TABLE + MAX_WAITS * WAIT_WORDS
export const BUFFERS = CLOCKS + MAX_ACTORS * MAX_ACTORS
// a store buffer: how many entries it holds, then those, oldest first
export const B_ENTRIES = 1
export const BUFFER_DEPTH = 16
export const ENTRY_WORDS = 6
export const E_ADDRESS = 0
export const E_BYTES = 1
export const E_LOW = 2
export const E_HIGH = 3
/** Record of the store in the trace, and its value as the trace holds it. */
export const E_STEP = 4
export const E_SHOWN = 5
export const BUFFER_WORDS = B_ENTRIES + BUFFER_DEPTH * ENTRY_WORDS
// races that are known: a word, and a mask of two actors
export const KNOWN = BUFFERS + MAX_UNITS * BUFFER_WORDS
export const MAX_KNOWN = 64
export const CLAIMS = KNOWN + MAX_KNOWN * 2
export const MAX_CLAIMS = 64
export const CLAIM_WORDS = 8
export const TRACE = CLAIMS + MAX_CLAIMS * CLAIM_WORDS
export const TRACE_WORDS = 8

export const T_WHO = 0 // unit, kind << 8, bytes << 16, flags << 24
export const T_ADDRESS = 1
export const T_BEFORE = 2
export const T_AFTER = 3
export const T_ENABLED = 4 // mask of who could have gone on
export const T_SITE = 5 // where its text begins, or 0
export const T_SITE_LENGTH = 6
export const T_OTHER = 7 // of a wake-up: the step that caused it; of a store that comes to memory: when it was done

/** The access is a plain one, not an atomic one. */
export const FLAG_PLAIN = 1
/** Nobody else was asked: the step is no decision. */
export const FLAG_NO_CHOICE = 2
/** A plain access between two steps. */
export const UNASKED = FLAG_PLAIN | FLAG_NO_CHOICE

// Cells: four words, then a clock, then for each actor its last read and its last write (mask, clock, step).
export const C_KEY = 0
export const C_GENERATION = 1
export const C_VERSION = 2
export const C_WRITER = 3 // step of the last write
export const C_CLOCK = 4
export const ACCESS_WORDS = 3
/** In the mask of an access: it was an atomic one. */
export const ACCESS_ATOMIC = 16

/** What a step does. */
export const KINDS = [
  'start',
  'load',
  'store',
  'add',
  'sub',
  'and',
  'or',
  'xor',
  'exchange',
  'compareExchange',
  'wait',
  'notify',
  'waitAsync',
  'wake',
  'read',
  'write',
  'timeout',
  'buffer',
  'flush',
  'fence',
  'interrupt',
  'exclusive writer',
  'exclusive access',
  'exclusive bits',
] as const
export type Kind = (typeof KINDS)[number]

export const K_START = 0
export const K_LOAD = 1
export const K_STORE = 2
export const K_ADD = 3
export const K_SUB = 4
export const K_AND = 5
export const K_OR = 6
export const K_XOR = 7
export const K_EXCHANGE = 8
export const K_CAS = 9
export const K_WAIT = 10
export const K_NOTIFY = 11
export const K_WAIT_ASYNC = 12
export const K_WAKE = 13
export const K_READ = 14
export const K_WRITE = 15
export const K_TIMEOUT = 16
/** A plain store goes into its actor's buffer; it comes to memory. */
export const K_BUFFER = 17
export const K_FLUSH = 18
/** Several words are accessed at once: the buffer must be empty. */
export const K_FENCE = 19
/** A CPU takes what is pending. */
export const K_INTERRUPT = 20
/** No access: the actor says that only it does such now. */
export const K_EXCLUSIVE_WRITER = 21
export const K_EXCLUSIVE_ACCESS = 22
export const K_EXCLUSIVE_BITS = 23

// detectors, in DETECT
export const DETECT_RACE = 1

/** Where the parts of variable size begin, in words. */
export interface Layout {
  actors: number
  /** Actors, store buffers, and interrupts. */
  units: number
  maxSteps: number
  plan: number
  /** A unit's pending operation at each step, two words for each; for exhaustive searches. */
  pending: number
  /** A bit for each page of 4 KiB: it was written in this run. */
  dirty: number
  cells: number
  cellWords: number
  maxCells: number
  text: number
  textWords: number
  words: number
}

/** Pages of shared memory whose writes are remembered: 128 MiB. */
export const MAX_PAGES = 1 << 15
export const PAGE_SHIFT = 12

/** layoutOf - for `actors`, with their store buffers and interrupts `units`, and at most `maxSteps` steps. */
export function layoutOf(actors: number, maxSteps: number, maxCells: number, units = actors): Layout {
  const plan = TRACE + maxSteps * TRACE_WORDS
  const pending = plan + maxSteps
  const dirty = pending + maxSteps * units * 2
  const cells = dirty + MAX_PAGES / 32
  const cellWords = C_CLOCK + actors + actors * 2 * ACCESS_WORDS
  const text = cells + maxCells * cellWords
  const textWords = 1 << 18
  const words = (text + textWords + 1) & ~1 // some of them are seen as floats
  return { actors, units, maxSteps, plan, pending, dirty, cells, cellWords, maxCells, text, textWords, words }
}
