/** costs.ts - which costs of a profile are fitted together, which are measured by themselves, and the fit of all of them. */
import { livelockDefaults } from '../config.js'
import type { CostProfile } from '../profile.js'
import type { CalibrateGroup } from '../types.js'
import { fitGroups, type Group, type Residual, scaled } from './fit.js'
import { type Measured, predictStages } from './stages.js'

/** A factor each. What stands in one line runs together, for every packet, interrupt or tick. */
export const GROUPS: readonly Group[] = [
  { name: 'tick', functions: ['timer_interrupt'] },
  { name: 'interrupt', functions: ['nic_interrupt'] },
  { name: 'poll', functions: ['__do_softirq', 'net_rx_action', 'nic_poll'] },
  {
    // Told apart from each other only by 100 ns or so, which is less than what V8 makes of them differs from machine to machine.
    name: 'receive',
    functions: [
      'nic_clean_rx',
      'alloc_skb',
      '__kfree_skb',
      'netif_receive_skb',
      'ip_rcv',
      'rt_cache_lookup',
      'ip_local_deliver',
    ],
  },
  {
    name: 'forward',
    functions: [
      'ip_forward',
      'ip_output',
      'neigh_resolve_output',
      'dev_queue_xmit',
      'pfifo_fast_enqueue',
      'qdisc_restart',
      'nic_xmit_frame',
      'nic_clean_tx',
    ],
  },
  { name: 'route', functions: ['ip_route_input_slow', 'fn_hash_lookup'] },
]

/** No stage runs these. They handle packets, so they are taken to be as many times as dear as a forwarded packet is. */
export const PREDICTED: readonly string[] = [
  'run_timers',
  'rcu_do_batch',
  'netif_rx',
  'process_backlog',
  'schednetisr_ip',
  'ipintr',
  'net_tx_action',
  'ip_fragment',
  'ip_options_compile',
  'icmp_send',
  'syscall_entry_exit',
  'screen_enqueue',
  'screend_rules',
  'kpoll_callback',
]
const PACKET = GROUPS.filter(g => ['receive', 'forward'].includes(g.name)).flatMap(g => g.functions)

/** The costs shift what a batch holds, so the fit is done again with the parts that the fitted machine has. */
const ROUNDS = 3

export interface FittedCosts {
  costs: Record<string, number>
  groups: CalibrateGroup[]
  residuals: Residual[]
}

function sum(costs: Readonly<Record<string, number>>, functions: readonly string[]): number {
  return functions.reduce((n, f) => n + (costs[f] ?? 0), 0)
}

/**
 * fitCosts - costs in cycles, from the stages and from what was measured `alone`, ns by function. `base` has the proportions
 * within the groups.
 */
export async function fitCosts(
  base: CostProfile,
  hz: number,
  readings: readonly Measured[],
  alone: Readonly<Record<string, number>>,
  seed: number,
  each: (round: number, rounds: number) => void,
  signal?: AbortSignal,
): Promise<FittedCosts> {
  const cycles = (ns: number): number => (ns * hz) / 1e9
  const first = Object.fromEntries(Object.entries(base.costs).map(([f, c]) => [f, (c * hz) / base.hz]))
  const known = {
    ...Object.fromEntries(Object.entries(alone).map(([f, ns]) => [f, cycles(ns)])),
    irq_entry_exit: cycles(livelockDefaults().irqCostNs), // what the free-running machine burns, to the ns
  }
  let costs: Record<string, number> = { ...first, ...known }
  let residuals: Residual[] = []
  for (let round = 0; round < ROUNDS; round++) {
    each(round, ROUNDS)
    const parts = await predictStages({ ...base, hz, costs }, seed, signal)
    const observations = readings.map(({ what, ns }) => ({ what, ns, parts: parts.get(what) ?? {} }))
    const fit = fitGroups(observations, GROUPS)
    residuals = fit.residuals
    costs = scaled(costs, GROUPS, fit.factors)
    const packet = sum(costs, PACKET) / sum(first, PACKET)
    for (const f of PREDICTED) costs[f] = (first[f] ?? 0) * packet
  }
  const rounded = Object.fromEntries(Object.entries(costs).map(([f, c]) => [f, Math.round(c)]))
  const groups = GROUPS.map(({ name, functions }) => ({
    name,
    functions: [...functions],
    ns: (sum(rounded, functions) * 1e9) / hz,
    factor: sum(rounded, functions) / Math.max(1, sum(first, functions)),
  }))
  return { costs: rounded, groups, residuals }
}
