/**
 * torture.ts - free-running torture: a machine without ports on which kernel programs take locks, read under RCU, pass packets
 * or arm timers as hard as they can, really in parallel; and what their oracles counted.
 */
import { RCU_FLAVOURS, type RcuFlavour, TORTURE_LOCKS, type TortureLock } from '../lib/torture.js'
import { MachinePanic } from './errors.js'
import { Machine, type MachineConfig, sleep } from './machine.js'
import {
  type LockReport,
  lockReports,
  type RcuReport,
  rcuReport,
  type SkbReport,
  skbReport,
  type TimerReport,
  timerReport,
} from './tortureCounts.js'
import { BUSTED, SPINNING, type TortureTarget } from './tortureTargets.js'
import type { LockKind, ProgressHook } from './types.js'

export interface TortureOptions {
  target: TortureTarget
  /** A sound kind, or `busted`. */
  kind: string
  cpus: number
  seed: number
  /** How long its threads are let run; or how many rounds each of them makes. */
  seconds?: number
  rounds?: number
  /** Kind of the machine's spinlocks, where the target is no spinlock itself. */
  lock?: LockKind
  /** Fill objects that are freed, and look at them when they are given out again. */
  poison?: boolean
  hooks?: ProgressHook
}

/** Something that the oracle does not allow. */
export interface Failure {
  what: string
  count: number
}

export interface TortureRun {
  target: TortureTarget
  kind: string
  cpus: number
  seed: number
  seconds: number
  /** Nothing when all is well. */
  failures: Failure[]
  /** First line of what the machine died of, if it did. */
  panic: string | null
  leaks: { name: string; used: number; total: number }[]
  locks: LockReport[]
  rcu: RcuReport | null
  skb: SkbReport | null
  timer: TimerReport | null
}

export interface TortureResult {
  schema: 'softnet.torture/1'
  cpus: number
  seed: number
  runs: TortureRun[]
}

const PROGRAM: Partial<Record<TortureTarget, string>> = { rcu: 'rcu', skb: 'skb', timer: 'timer' }
/** How long threads may take to end once they are told to, ms: a readers' section may wait for a host core. */
const PATIENCE_MS = 40_000
const LOOK_MS = 20
const HZ = 1000

function machineConfig(options: TortureOptions): MachineConfig {
  const program = PROGRAM[options.target] ?? 'lock'
  const kind = SPINNING.find(k => k === options.kind)
  return {
    cpus: options.cpus,
    rx: 'napi',
    lock: kind ?? options.lock ?? 'tas',
    hz: HZ,
    irqCostNs: 0,
    irqWork: 0,
    seed: options.seed,
    ports: [],
    routes: [],
    neighbours: [],
    userSpin: false,
    trace: false,
    programs: [new URL(`../torture/${program}.js`, import.meta.url).href],
  }
}

/** The bits of the control word `mask`. */
function maskOf({ target, kind }: TortureOptions): number {
  if (target === 'rcu') return kind === BUSTED ? 1 : 1 << RCU_FLAVOURS.indexOf(kind as RcuFlavour)
  return target === 'locks' ? -1 : 1 << Math.max(0, TORTURE_LOCKS.indexOf(target as TortureLock))
}

/** runTorture - one target of one kind on a machine of its own. Throws what the signal was aborted with. */
export async function runTorture(options: TortureOptions): Promise<TortureRun> {
  const { target, kind, cpus, seed, hooks } = options
  const run: TortureRun = {
    ...{ target, kind, cpus, seed, seconds: 0, failures: [], panic: null, leaks: [] },
    ...{ locks: [], rcu: null, skb: null, timer: null },
  }
  const machine = new Machine(machineConfig(options))
  try {
    await torture(machine, run, options)
  } catch (error) {
    hooks?.signal?.throwIfAborted()
    if (!(error instanceof MachinePanic)) throw error
    run.panic = error.message.trim().split('\n')[0]!
    run.failures.push({ what: run.panic, count: 1 })
  } finally {
    await machine.destroy()
  }
  return run
}

async function torture(machine: Machine, run: TortureRun, options: TortureOptions): Promise<void> {
  await machine.load()
  const { ram } = machine
  const set = (field: string, value: number): void => {
    ram.i32[ram.address('torture', field) >> 2] = value
  }
  set('rounds', options.rounds ?? 0)
  set('seed', options.seed)
  set('busted', options.kind === BUSTED ? 1 : 0)
  set('mask', maskOf(options))
  if (options.poison === true) ram.setConfig('slab_poison', 1)
  await machine.powerOn()
  const began = machine.nowMs
  const left = (): number => ram.word('torture', 'threads') - ram.word('torture', 'done')
  try {
    if (options.seconds !== undefined) await until(machine, options, options.seconds * 1000, left)
    if (options.rounds === undefined) set('stop', 1)
    run.seconds = (machine.nowMs - began) / 1000
    if (!(await until(machine, options, PATIENCE_MS, left)))
      run.failures.push({ what: 'threads that do not end', count: left() })
    await sleep(LOOK_MS) // what the threads left to softirqs
    await machine.halt()
    machine.check()
  } finally {
    if (options.hooks?.signal?.aborted !== true) count(machine, run)
  }
  if (run.failures.some(f => f.what.startsWith('threads'))) return
  run.leaks = await machine.audit()
  for (const { name, used } of run.leaks) run.failures.push({ what: `leaked ${name}`, count: used })
}

/** @returns true when all threads have ended before so many ms were over */
async function until(machine: Machine, options: TortureOptions, ms: number, left: () => number): Promise<boolean> {
  const { target, kind, hooks } = options
  const began = machine.nowMs
  for (;;) {
    hooks?.signal?.throwIfAborted()
    machine.check()
    if (left() <= 0) return true
    const passed = machine.nowMs - began
    if (passed >= ms) return false
    if (ms !== PATIENCE_MS) hooks?.progress?.(passed, ms, `${target} ${kind}`)
    await sleep(Math.min(LOOK_MS, ms - passed))
  }
}

/** Read the counters, also those of a machine that died. */
function count(machine: Machine, run: TortureRun): void {
  const { ram } = machine
  const fail = (what: string, n: number): void => {
    if (n !== 0) run.failures.push({ what, count: n })
  }
  if (run.target === 'rcu') {
    run.rcu = rcuReport(ram, run.cpus)
    const past = (slots: readonly number[]): number => slots.slice(2).reduce((sum, n) => sum + n, 0)
    fail('readers that saw an element older than a grace period', past(run.rcu.pipe))
    fail('readers over which more than a grace period ended', past(run.rcu.batch))
    fail('readers that saw freed memory', run.rcu.rtmbe)
  } else if (run.target === 'skb') {
    run.skb = skbReport(ram, run.cpus)
    fail('words of packets that changed', run.skb.bad)
    fail('wrong counts of references', run.skb.refs)
  } else if (run.target === 'timer') {
    run.timer = timerReport(ram, run.cpus)
    fail('timers that fired early', run.timer.early)
    fail('timers that fired twice', run.timer.twice)
    fail('timers that were lost', run.timer.lost)
  } else {
    const wanted = TORTURE_LOCKS.filter(name => run.target === 'locks' || run.target === name)
    run.locks = wanted.map(name => lockReports(ram, name, run.cpus))
    for (const l of run.locks) {
      fail(`${l.lock}: holders beside each other`, l.fail)
      fail(`${l.lock}: sections that were lost`, l.lost)
    }
  }
}
