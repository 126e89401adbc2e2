/**
 * wait_graph.ts - how a machine in virtual time dies that can never go on: its dump says who waits for what.
 *
 * It only reads, and plainly: an atomic operation might give the turn away, and then time would pass.
 */
import { describe_addr } from '../abi/section.js'
import { boot } from '../arch/boot.js'
import { VIRTUAL } from '../arch/cost.js'
import {
  CONTEXT_NAMES,
  CPU_CONTEXT,
  CPU_CURRENT,
  CPU_DEAD,
  CPU_PENDING,
  cpu_area,
  cpu_id,
  describe_lock,
  HARDIRQ,
  HELD_READ,
  HELD_WRITE,
  panic,
  SOFTIRQ,
} from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import {
  ACTOR_ALARM,
  ACTOR_BLOCKED,
  ACTOR_BOARD,
  ACTOR_CLOCK,
  ACTOR_HOST,
  ACTOR_OFF,
  ACTOR_STATE,
  ACTOR_WHY,
  actor_record,
  ns_per_cycle,
  turnstile_entry,
  WHY_BUSY,
  WHY_IDLE,
  WHY_LOCK,
  WHY_STOPPED,
} from '../arch/turnstile.js'
import { timers_pending } from '../irq/timer.js'
import { all_tasks, task_name } from '../sched/sched.js'
import {
  TASK,
  TASK_DEAD,
  TASK_INTERRUPTIBLE,
  TASK_RUNNING,
  TASK_STOPPED,
  TASK_UNINTERRUPTIBLE,
  TASK_ZOMBIE,
  type task_struct,
} from '../sched/task.js'
import { queue_of } from '../sched/wait.js'
import { circle, holders, lock_wanted, locks_held, locks_stood_at } from '../sync/deadlock.js'
import { LOCK_KINDS } from '../sync/spinlock.js'

const i32 = RAM.i32
const f64 = RAM.f64

/** The dump has room for so many tasks that do not run. */
const TASKS = 40
const STATES: Record<number, string | undefined> = {
  [TASK_RUNNING]: 'ready to run',
  [TASK_INTERRUPTIBLE]: 'sleeps, interruptible',
  [TASK_UNINTERRUPTIBLE]: 'sleeps',
  [TASK_STOPPED]: 'was stopped by a signal',
  [TASK_ZOMBIE]: 'zombie',
  [TASK_DEAD]: 'has ended',
}

function ms(cycles: number): string {
  return `${((cycles * ns_per_cycle()) / 1e6).toFixed(6)} ms`
}
function word(actor: number, at: number): number {
  return i32[(actor_record(actor) + at) >> 2]
}
function cycles(actor: number, at: number): number {
  return f64[(actor_record(actor) + at) >> 3]
}

/** A lock's name, without how it is wanted. */
function lock_name(lock: number): string {
  return describe_lock(lock & ~3)
}
function lock_kind(lock: number): string {
  if ((lock & 3) === 0) return `${LOCK_KINDS[boot.lockKind]} spinlock`
  return (lock & HELD_WRITE) !== 0 ? 'rwlock, to write' : 'rwlock, to read'
}

/** Who holds a lock that a CPU wants, and, of an rwlock, how. */
function held_by(lock: number): string {
  const cpus = holders(lock).map(cpu => {
    const how = locks_held(cpu).find(held => (held & ~3) === (lock & ~3)) ?? 0
    return `CPU ${cpu}${(how & HELD_READ) !== 0 ? ' for reading' : ''}`
  })
  return cpus.length === 0 ? 'held by nobody' : `held by ${cpus.join(', ')}`
}

// ---- one line each --------------------------------------------------------------------------------------------------

function standing(cpu: number): string {
  const wanted = lock_wanted(cpu)
  const below = locks_stood_at(cpu).slice(0, -1).reverse()
  const outer = below.map(lock => `, below that for ${lock_name(lock)}`).join('')
  return `waits for ${lock_name(wanted)} (${lock_kind(wanted)}) ${held_by(wanted)}${outer}`
}

function idling(cpu: number): string {
  const timers = timers_pending(cpu).length
  const vectors = i32[(cpu_area(cpu) + CPU_PENDING) >> 2]
  const asked = vectors === 0 ? 'no interrupt' : `interrupts 0x${(vectors >>> 0).toString(16)}`
  return `idle, ${asked} pending, ${timers === 0 ? 'no timer' : timers === 1 ? '1 timer' : `${timers} timers`} on its wheel`
}

function doing(cpu: number): string {
  if (i32[(cpu_area(cpu) + CPU_DEAD) >> 2] !== 0) return 'stopped'
  const state = word(cpu, ACTOR_STATE)
  if (state === ACTOR_OFF) return 'off'
  if (state !== ACTOR_BLOCKED) return 'runs'
  const why = word(cpu, ACTOR_WHY)
  if (why === WHY_LOCK) return standing(cpu)
  if (why === WHY_BUSY) return `computes until ${ms(cycles(cpu, ACTOR_ALARM))}`
  return why === WHY_STOPPED ? 'stopped' : why === WHY_IDLE ? idling(cpu) : 'blocked'
}

/** What runs on a CPU: an interrupt or softirq, and the process that it came over. */
function running(cpu: number): string {
  const packed = i32[(cpu_area(cpu) + CPU_CONTEXT) >> 2]
  const context = packed & 7
  const what = context === HARDIRQ || context === SOFTIRQ ? `${CONTEXT_NAMES[context]} ${packed >> 3}` : ''
  const task = TASK.at(i32[(cpu_area(cpu) + CPU_CURRENT) >> 2])
  if (task === null) return what
  return what === '' ? task_name(task) : `${what} over ${task_name(task)}`
}

function cpu_line(cpu: number): string {
  const held = locks_held(cpu).map(describe_lock).join(' ')
  const runs = running(cpu)
  return (
    `CPU ${cpu} at ${ms(cycles(cpu, ACTOR_CLOCK))}: ${doing(cpu)}` +
    `${held === '' ? '' : `; holds ${held}`}${runs === '' ? '' : `; in ${runs}`}`
  )
}

/** The board and the host: what is due of theirs. */
function other_line(name: string, actor: number): string {
  const state = word(actor, ACTOR_STATE)
  const alarm = cycles(actor, ACTOR_ALARM)
  const due = state === ACTOR_OFF ? 'off' : alarm === Infinity ? 'nothing is due' : `due at ${ms(alarm)}`
  return `${name} at ${ms(cycles(actor, ACTOR_CLOCK))}: ${state === ACTOR_BLOCKED || state === ACTOR_OFF ? due : 'runs'}`
}

function task_line(p: task_struct): string {
  const queue = queue_of(p)
  const on = queue === 0 ? '' : ` on ${describe_addr(queue) ?? `0x${queue.toString(16)}`}`
  return `${task_name(p)} of CPU ${p.cpu}: ${STATES[p.state] ?? `state ${p.state}`}${on}`
}

/** Tasks that do not run, those that sleep on a queue first: who rests until there is work for it seldom holds others up. */
function task_lines(): string[] {
  const running = Array.from({ length: num_cpus() }, (_, cpu) => i32[(cpu_area(cpu) + CPU_CURRENT) >> 2])
  const tasks = all_tasks().filter(p => !running.includes(p.addr))
  const sorted = [...tasks.filter(p => queue_of(p) !== 0), ...tasks.filter(p => queue_of(p) === 0)]
  const lines = sorted.slice(0, TASKS).map(task_line)
  return sorted.length > TASKS ? [...lines, `and ${sorted.length - TASKS} more tasks`] : lines
}

/** wait_graph - lines for a dump: each CPU, the board and the host, and the tasks that do not run. */
export function wait_graph(): string {
  const lines = Array.from({ length: num_cpus() }, (_, cpu) => cpu_line(cpu))
  lines.push(other_line('board', ACTOR_BOARD), other_line('host', ACTOR_HOST), ...task_lines())
  return `\nWho waits for what:\n ${lines.join('\n ')}`
}

/** One sentence: CPU 0 waits for a held by CPU 1, which waits for b held by CPU 0. */
function sentence(cpus: readonly number[]): string {
  const links = cpus.map((cpu, k) => {
    const next = cpus[(k + 1) % cpus.length]
    return `waits for ${lock_name(lock_wanted(cpu))} held by CPU ${next}`
  })
  return `CPU ${cpus[0]} ${links.join(', which ')}`
}

function stands(): void {
  const cpus = circle(cpu_id)
  if (cpus !== null) panic(`BUG: deadlock: ${sentence(cpus)}`, wait_graph())
}

function stuck(why: string): void {
  panic(`BUG: no CPU can go on: ${why}`, wait_graph())
}

if (VIRTUAL) Object.assign(turnstile_entry, { stands, stuck })
