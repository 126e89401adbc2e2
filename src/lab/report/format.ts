/** format.ts - numbers for people. */
import type { LivelockPoint, LivelockSeries, RxArch } from '../types.js'

/** kpps - packets per second in thousands, three digits. */
export function kpps(pps: number): string {
  const k = pps / 1000
  return k >= 100 ? k.toFixed(0) : k >= 10 ? k.toFixed(1) : k.toFixed(2)
}
/** percent - of a share from 0 to 1. */
export function percent(share: number): string {
  const p = share * 100
  return p >= 9.95 || p === 0 ? p.toFixed(0) : p.toFixed(1)
}
/** micros - microseconds, or a dash. */
export function micros(us: number | null): string {
  return us === null ? '-' : us >= 100 ? us.toFixed(0) : us.toFixed(1)
}
/** peak - the most that a series ever delivered, packets/s. */
export function peak(s: LivelockSeries): number {
  return Math.max(0, ...s.points.map(p => p.delivered_pps))
}
/** kept - share of its own peak that a series delivers at the highest load. */
export function kept(s: LivelockSeries): number {
  const last = s.points[s.points.length - 1]
  return last === undefined || peak(s) === 0 ? 0 : last.delivered_pps / peak(s)
}
/** share - of all CPUs' time by context, in one point. */
export function share(p: LivelockPoint, context: 'hardirq' | 'softirq' | 'system' | 'user' | 'idle'): number {
  return p.cpu.reduce((sum, c) => sum + c[context], 0) / Math.max(1, p.cpu.length)
}
/** topDrops - the reasons with the most drops. */
export function topDrops(p: LivelockPoint, n: number): [string, number][] {
  return Object.entries(p.drops)
    .sort((a, b) => b[1] - a[1])
    .slice(0, n)
}

export const ARCH_NAMES: Record<RxArch, string> = {
  interrupt: 'interrupt-driven (4.2BSD)',
  softnet: 'netif_rx and backlog (softnet)',
  napi: 'polling (NAPI)',
  polled: 'polling thread (1996)',
}

const PLACES: Record<string, string> = {
  nic_ring_full: 'in the NIC, for free',
  ipintrq_full: 'on the full IP input queue, after an interrupt was spent on each',
  backlog_full: 'on the full backlog, after an interrupt was spent on them',
  qdisc_full: 'on the full output queue, after all the work was done',
}

/** reason - one sentence on why the highest load went as it did, read off its numbers. */
export function reason(s: LivelockSeries): string {
  const p = s.points[s.points.length - 1]
  if (p === undefined) return 'no point was measured'
  const hard = share(p, 'hardirq')
  const soft = share(p, 'softirq')
  const [first] = topDrops(p, 1)
  const wasted = Object.entries(p.drops).filter(([r]) => !r.startsWith('nic_'))
  const [worst] = wasted.sort((a, b) => b[1] - a[1])
  const where = first === undefined ? 'nothing was dropped' : `most drops fell ${PLACES[first[0]] ?? `to ${first[0]}`}`
  if (hard > 0.6) {
    const died = worst === undefined ? '' : `; ${worst[1]} packets died ${PLACES[worst[0]] ?? `of ${worst[0]}`}`
    return `${percent(hard)} % of the CPU went into interrupts, ${percent(soft)} % into forwarding, ${percent(p.user_share)} % were left to the user process${died}`
  }
  return `${percent(soft)} % of the CPU forwarded packets, ${percent(hard)} % went into interrupts, ${percent(p.user_share)} % were left to the user process; ${where}`
}
