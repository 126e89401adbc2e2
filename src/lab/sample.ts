/** sample.ts - counters of a running machine at one moment, and what happened between two. */
import { HISTOGRAM_SLOTS, histogram_percentile } from '../lib/histogram.js'
import { hostCores } from './config.js'
import { RunError } from './errors.js'
import type { Machine } from './machine.js'
import type { Fates, PortCounters } from './ramReader.js'
import type { CpuShares, LivelockPoint } from './types.js'

export interface Sample {
  /** host clock, ms */
  at: number
  /** CPU time of all threads of this process, ms */
  spent: number
  ports: PortCounters[]
  fates: Fates
  irqs: number
  /** Ticks of the clock that CPU 0 served. */
  ticks: number
  polls: number
  timeSqueeze: number
  cpu: Record<string, number>[]
}

function cpuTime(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** takeSample - read everything; takes some 50 microseconds. */
export function takeSample(machine: Machine): Sample {
  const { ram, config } = machine
  const n = config.cpus
  return {
    at: machine.nowMs,
    spent: cpuTime(),
    ports: config.ports.map((_, k) => ram.port(k)),
    fates: ram.fates(n),
    irqs: ram.sum('irq_stat', 'total', n) - ram.sum('irq_stat', 'timer', n),
    ticks: ram.sum('irq_stat', 'timer', 1),
    polls: ram.sum('netdev_rx_stat', 'polls', n),
    timeSqueeze: ram.sum('netdev_rx_stat', 'time_squeeze', n),
    cpu: Array.from({ length: n }, (_, cpu) => ram.cpuTimes(cpu)),
  }
}

function shares(a: Record<string, number>, b: Record<string, number>): CpuShares {
  const spent = (...names: string[]): number => names.reduce((sum, name) => sum + b[name]! - a[name]!, 0)
  const total = Math.max(1, spent(...Object.keys(b)))
  return {
    hardirq: spent('hardirq') / total,
    softirq: spent('softirq') / total,
    system: spent('system') / total,
    user: spent('user', 'nice') / total,
    idle: spent('idle', 'iowait') / total,
  }
}

/** Counters of 32 bits wrap; nothing here counts further than that between two samples. */
function wrapped(n: number): number {
  return n < 0 ? n + 2 ** 32 : n
}

/** dropsBetween - by place and reason. */
export function dropsBetween(a: Sample, b: Sample): Record<string, number> {
  const drops: Record<string, number> = {}
  const missed = b.ports.reduce((sum, p, k) => sum + p.missed - a.ports[k]!.missed, 0)
  const filtered = b.ports.reduce((sum, p, k) => sum + p.filtered - a.ports[k]!.filtered, 0)
  if (missed > 0) drops.nic_ring_full = missed
  if (filtered > 0) drops.nic_filtered = filtered
  for (const [reason, n] of Object.entries(b.fates.drops)) {
    const now = wrapped(n - (a.fates.drops[reason] ?? 0))
    if (now > 0) drops[reason] = now
  }
  return drops
}

/** What the router drops because it cannot keep up; it drops anything else at any rate. */
const CONGESTION = ['rx_no_memory', 'ipintrq_full', 'backlog_full', 'screen_queue_full', 'qdisc_full']

/**
 * lostBetween - frames offered; those whose fate the kernel decided; those that died of congestion, or that pile up on their
 * way, which is how congestion begins.
 */
export function lostBetween(a: Sample, b: Sample): { offered: number; decided: number; lost: number } {
  const ports = (field: 'offered' | 'missed' | 'filtered'): number =>
    b.ports.reduce((n, p, k) => n + p[field] - a.ports[k]![field], 0)
  const drops = Object.entries(dropsBetween(a, b)).filter(([why]) => !why.startsWith('nic_'))
  const sum = (some: [string, number][]): number => some.reduce((n, [, d]) => n + d, 0)
  const went = wrapped(b.fates.forwarded - a.fates.forwarded) + wrapped(b.fates.delivered - a.fates.delivered)
  const decided = went + sum(drops)
  const congested = ports('missed') + sum(drops.filter(([why]) => CONGESTION.includes(why)))
  const offered = ports('offered')
  const underway = offered - ports('missed') - ports('filtered') - decided
  return { offered, decided, lost: congested + Math.max(0, underway) }
}

/**
 * hostShare - how much of the host's time that the machine's threads wanted they got. Every CPU has a process to run and the
 * board never sleeps while it sends, so each thread could use a core all the time.
 */
export function hostShare(machine: Machine, a: Sample, b: Sample): number {
  if (machine.virtual) return 1 // nobody takes virtual time away
  const threads = Math.min(machine.config.cpus + 1, hostCores())
  return Math.min(1, (b.spent - a.spent) / ((b.at - a.at) * threads))
}

/**
 * ticksLost - ticks of the clock that CPU 0 should have served and did not: its thread or the board's stood still for more
 * than a tick, which a share of the host's time may hide.
 */
export function ticksLost(machine: Machine, a: Sample, b: Sample): number {
  return Math.max(0, ((b.at - a.at) * machine.config.hz) / 1000 - wrapped(b.ticks - a.ticks))
}

/** pointBetween - one point of the sweep: port 0 is the source, port 1 the far side. */
export function pointBetween(machine: Machine, a: Sample, b: Sample): LivelockPoint {
  const seconds = (b.at - a.at) / 1000
  const rate = (n: number): number => Math.round(n / seconds)
  const latency = new Int32Array(machine.histograms, HISTOGRAM_SLOTS * 4, HISTOGRAM_SLOTS).slice()
  const us = (p: number): number | null => {
    const ns = histogram_percentile(latency, p)
    return ns === null ? null : Math.round(ns / 10) / 100
  }
  const cpu = b.cpu.map((times, k) => shares(a.cpu[k]!, times))
  return {
    offered_pps: rate(b.ports[0]!.offered - a.ports[0]!.offered),
    received_pps: rate(wrapped(b.fates.received - a.fates.received)),
    delivered_pps: rate(b.ports[1]!.sent - a.ports[1]!.sent),
    irqs: wrapped(b.irqs - a.irqs),
    polls: wrapped(b.polls - a.polls),
    time_squeeze: wrapped(b.timeSqueeze - a.timeSqueeze),
    drops: dropsBetween(a, b),
    cpu,
    user_share: cpu.reduce((sum, c) => sum + c.user, 0) / cpu.length,
    latency_us: { p50: us(0.5), p99: us(0.99), p999: us(0.999) },
  }
}

/**
 * drain - wait until nothing moves any more: the sources are off, the queues run empty. As long as the books do not balance
 * it waits on: on a busy host a CPU may have lost its core with packets in hand.
 */
export async function drain(machine: Machine, patienceMs = 3000): Promise<void> {
  const end = machine.nowMs + patienceMs
  let still = 0
  let last = ''
  while (still < 5) {
    machine.check()
    const now = JSON.stringify([
      machine.ram.fates(machine.config.cpus),
      machine.config.ports.map((_, k) => machine.ram.port(k)),
    ])
    still = now === last ? still + 1 : 0
    last = now
    if (still >= 5 && machine.nowMs < end && unbalanced(machine).length > 0) still = 4
    if (still < 5 && machine.nowMs > end) throw new RunError('the machine does not come to rest')
    await machine.pass(5)
  }
}

/** unbalanced - what the books of a machine at rest do not account for; empty when packets are conserved. */
export function unbalanced(machine: Machine): string[] {
  const { ports, fates } = takeSample(machine)
  const wrong: string[] = []
  const check = (what: string, left: number, right: number): void => {
    if (wrapped(left - right) % 2 ** 32 !== 0) wrong.push(`${what}: ${left} is not ${right}`)
  }
  ports.forEach((p, k) => {
    check(`port ${k}: offered = ring + missed + filtered`, p.offered, p.ring + p.missed + p.filtered)
  })
  const sum = (read: (p: PortCounters) => number): number => ports.reduce((n, p) => n + read(p), 0)
  const dropped = Object.values(fates.drops).reduce((n, d) => n + d, 0)
  check(
    'received = rings',
    fates.received,
    sum(p => p.ring),
  )
  check('received = forwarded + delivered + dropped', fates.received, fates.forwarded + fates.delivered + dropped)
  return wrong
}
