/** tortureCounts.ts - the counters of the torture programs, read from the machine's RAM. */
import { LATE_SLOTS, RCU_TORTURE_SLOTS, type TortureLock } from '../lib/torture.js'
import type { RamReader } from './ramReader.js'

/** A lock on one CPU, in the words of lock_stat; times in us. */
export interface LockCpu {
  writes: number
  reads: number
  /** Of a seqlock's readers: times that they had to read again. */
  retries: number
  contentions: number
  wait_max_us: number
  wait_total_us: number
  hold_max_us: number
  hold_total_us: number
}

export interface LockReport {
  lock: TortureLock
  /** Times that somebody was inside who must not be, or that a reader saw half of what a writer wrote. */
  fail: number
  /** Critical sections of writers whose work is not in what they count together. */
  lost: number
  /** Most that were inside at once. */
  holders: number
  cpus: LockCpu[]
}

export interface RcuReport {
  /** Address of the element that was in sight in the end. */
  rtc: number
  ver: number
  rta: number
  rtaf: number
  rtf: number
  rtmbe: number
  reads: number
  pipe: number[]
  batch: number[]
  circulation: number[]
}

export interface SkbReport {
  made: number[]
  freed: number[]
  none: number
  bad: number
  refs: number
}

export interface TimerReport {
  arms: number[]
  moves: number[]
  deletions: number[]
  fired: number[]
  early: number
  twice: number
  lost: number
  /** Calls whose due time was being changed, so that nobody can say how late they were. */
  unknown: number
  late: number[]
}

function perCpu(ram: RamReader, variable: string, field: string, cpus: number): number[] {
  return Array.from({ length: cpus }, (_, cpu) => ram.word(variable, field, cpu) >>> 0)
}

/** An array of words, summed over the CPUs. */
function slots(ram: RamReader, variable: string, field: string, length: number, cpus: number): number[] {
  return Array.from({ length }, (_, k) => {
    let sum = 0
    for (let cpu = 0; cpu < cpus; cpu++) sum += ram.i32[(ram.address(variable, field, cpu) >> 2) + k]! >>> 0
    return sum
  })
}

export function lockReports(ram: RamReader, lock: TortureLock, cpus: number): LockReport {
  const stats = `torture_lock_stats_${lock}`
  const rows = Array.from({ length: cpus }, (_, cpu) => {
    const word = (field: string): number => ram.word(stats, field, cpu) >>> 0
    const times = ram.address(stats, 'times', cpu) >> 3
    const us = (k: number): number => ram.f64[times + k]! / 1000
    return {
      writes: word('writes'),
      reads: word('reads'),
      retries: word('retries'),
      contentions: word('contentions'),
      wait_max_us: us(0),
      wait_total_us: us(1),
      hold_max_us: us(2),
      hold_total_us: us(3),
    }
  })
  const writes = rows.reduce((sum, r) => sum + r.writes, 0)
  const counted = ['first', 'second'].map(field => ram.word(`torture_lock_${lock}`, field) >>> 0)
  return {
    lock,
    fail: ram.sum(stats, 'fail', cpus),
    lost: Math.max(...counted.map(n => Math.abs(writes - n))),
    holders: Math.max(...perCpu(ram, stats, 'most', cpus)),
    cpus: rows,
  }
}

export function rcuReport(ram: RamReader, cpus: number): RcuReport {
  const word = (field: string): number => ram.word('torture_rcu', field) >>> 0
  return {
    rtc: word('current'),
    ver: word('version'),
    rta: word('alloc'),
    rtaf: word('alloc_fail'),
    rtf: word('free'),
    rtmbe: ram.sum('torture_rcu_own', 'mberror', cpus),
    reads: ram.sum('torture_rcu_own', 'reads', cpus),
    pipe: slots(ram, 'torture_rcu_own', 'pipe', RCU_TORTURE_SLOTS, cpus),
    batch: slots(ram, 'torture_rcu_own', 'batch', RCU_TORTURE_SLOTS, cpus),
    circulation: slots(ram, 'torture_rcu', 'wcount', RCU_TORTURE_SLOTS, 1),
  }
}

export function skbReport(ram: RamReader, cpus: number): SkbReport {
  return {
    made: perCpu(ram, 'torture_skb_own', 'made', cpus),
    freed: perCpu(ram, 'torture_skb_own', 'freed', cpus),
    none: ram.sum('torture_skb_own', 'none', cpus),
    bad: ram.sum('torture_skb_own', 'bad', cpus),
    refs: ram.sum('torture_skb_own', 'refs', cpus),
  }
}

export function timerReport(ram: RamReader, cpus: number): TimerReport {
  const of = (field: string): number[] => perCpu(ram, 'torture_timer_own', field, cpus)
  const sum = (field: string): number => ram.sum('torture_timer_own', field, cpus)
  return {
    arms: of('arms'),
    moves: of('moves'),
    deletions: of('deletions'),
    fired: of('fired'),
    early: sum('early'),
    twice: sum('twice'),
    lost: ram.word('torture_timer', 'lost'),
    unknown: sum('unknown'),
    late: slots(ram, 'torture_timer_own', 'late', LATE_SLOTS, cpus),
  }
}
