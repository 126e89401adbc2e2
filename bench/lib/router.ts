/** router.ts - the router of the forwarding measures: 10,000 routes behind one gateway, as the host kernel has them. */

import type { GeneratorConfig } from '../../src/hw/types.js'
import { LIVELOCK_PORTS, livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import type { MachineConfig } from '../../src/lab/machine.js'
import { makeDestinations, makeRoutes } from './routes.js'

export const ROUTES = 10_000

export interface RouterOptions {
  destinations: number
  cpus?: number
  seed: number
}

/** benchRouter - NAPI, no user process, interrupts that cost what they cost: it is our own code that is measured. */
export function benchRouter({ destinations, cpus = 1, seed }: RouterOptions): MachineConfig {
  const config = livelockMachine(
    { ...livelockDefaults(), cpus, seed, irqCostNs: 0, flows: Math.max(16, destinations) },
    'napi',
  )
  const routes = makeRoutes(ROUTES, seed)
  const source = config.ports[0]!.source as GeneratorConfig
  const gw = LIVELOCK_PORTS.receiver
  return {
    ...config,
    userSpin: false,
    ports: [
      {
        ...config.ports[0]!,
        source: { ...source, destinations, dst_list: makeDestinations(destinations, routes, seed + 1) },
      },
      config.ports[1]!,
    ],
    routes: routes.map(r => ({
      dst: r.prefix | 0,
      prefixlen: r.len,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw, dev: 'eth1', weight: 1 }],
    })),
  }
}
