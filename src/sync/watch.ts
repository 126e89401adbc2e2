/**
 * watch.ts - does code leave a CPU as it found it? Interrupts on, and preempt_count what it was: asked after each handler where
 * locks are watched, and of an actor of a controlled run when it ends. What a CPU is in the middle of is told for reports, and
 * which interrupts it would take: the explorer lets it take them between any two of its steps, but not on its way to sleep for a
 * lock, which is the machine's own business and no code of 2.6.11.
 *
 * @unwatched - what is looked at here is no access of the code that runs.
 */
import { boot, PROVE } from '../arch/boot.js'
import { bug } from '../arch/bug.js'
import {
  CONTEXT_NAMES,
  CPU_CONTEXT,
  CPU_IF,
  CPU_PARKING,
  CPU_PREEMPT,
  CPU_PRIORITY,
  cpu_area,
  cpu_id,
  SYSTEM,
  take_interrupts,
} from '../arch/cpu.js'
import { POWER, RUNNING, VEC_HALT } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { held_text, locks_held } from './lockdep.js'
import { seq_forget, seq_unfinished } from './seqlock.js'

const i32 = RAM.i32
const AREA = cpu_area(Math.max(cpu_id, 0))
const CONTEXT = (AREA + CPU_CONTEXT) >> 2
const PREEMPT = (AREA + CPU_PREEMPT) >> 2
const IF = (AREA + CPU_IF) >> 2
const PARKING = (AREA + CPU_PARKING) >> 2
const PRIORITY = (AREA + CPU_PRIORITY) >> 2

/** What a handler is to leave as it was: its interrupt flag and preempt_count; for check_balance. */
export function balance(): number {
  return i32[PREEMPT] * 2 + (i32[IF] !== 0 ? 1 : 0)
}

function state_text(state: number): string {
  return `preempt_count 0x${(state >> 1).toString(16)} and interrupts ${(state & 1) !== 0 ? 'on' : 'off'}`
}

/** check_balance - after `what` has returned. `before`: balance() of then. */
export function check_balance(before: number, what: string): void {
  const now = balance()
  if (now !== before)
    bug('context imbalance', `${what} began with ${state_text(before)}, and ended with ${state_text(now)}`)
}

// ---- actors of a controlled run -------------------------------------------------------------------------------------------

const at_start = { balance: 0, locks: 0 }

function begun(): void {
  at_start.balance = balance()
  at_start.locks = locks_held()
  entering.yes = false
  seq_forget()
}

function ended(): void {
  if (i32[POWER >> 2] !== RUNNING) return // the power has gone: it left from wherever it was
  if (locks_held() !== at_start.locks) bug('context imbalance', `ends with ${held_text()} held`)
  check_balance(at_start.balance, 'it')
  seq_unfinished()
}

function here(): string {
  const context = i32[CONTEXT]! & 7
  const where = context === SYSTEM ? 'in process context' : `in ${CONTEXT_NAMES[context] ?? '?'} context`
  return `${where}, interrupts ${i32[IF] === 0 ? 'off' : 'on'}, holds ${held_text()}`
}

/** A halt is taken where it is looked for: it ends what runs. */
const NO_HALT = ~(1 << VEC_HALT)

/** A CPU is on its way into the interrupt: until the flag is off no other one comes. */
const entering = { yes: false }

const interrupts = {
  view: i32,
  index: AREA >> 2,
  mask(): number {
    if (i32[IF] === 0) entering.yes = false
    return i32[IF] === 0 || i32[PARKING] !== 0 || entering.yes ? 0 : ((1 << i32[PRIORITY]) - 1) & NO_HALT
  },
  deliver(): void {
    entering.yes = true
    take_interrupts()
  },
}

if (PROVE && boot.controlled === true) boot.watch = { begun, ended, here, interrupts }
