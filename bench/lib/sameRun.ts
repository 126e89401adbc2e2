/** sameRun.ts - short runs in virtual time, of machines as different as they get, and all that can be said of a run. */
import { createHash } from 'node:crypto'
import { livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { Machine } from '../../src/lab/machine.js'
import { readProfile } from '../../src/lab/profile.js'
import { drain, pointBetween, takeSample, unbalanced } from '../../src/lab/sample.js'
import { cycleShares, lockStats } from '../../src/lab/tallies.js'
import type { LivelockConfig, RxArch } from '../../src/lab/types.js'
import { prng_below, prng_f64, prng_seed } from '../../src/lib/prng.js'

export interface RunConfig {
  name: string
  rx: RxArch
  profile: string
  /** Virtual time under load. */
  ms: number
  rate: number
  user: boolean
  config: Partial<LivelockConfig>
}

/** All that is the same in the same run. */
export interface RunRecord {
  hash: string
  /** SHA-256 of `json`, 16 digits. */
  digest: string
  forwarded: number
  handovers: number
  json: string
}

const CPUS = [1, 2, 3, 4, 2, 4, 1, 6, 2, 8] as const
const LOCKS = ['tas', 'ticket', 'mcs'] as const
const RX = ['napi', 'softnet', 'interrupt', 'polled'] as const
const SCREEND = ['off', 'off', 'on', 'feedback'] as const
const ARRIVALS = ['constant', 'poisson', 'burst'] as const
const SIZES: LivelockConfig['sizes'][] = [
  [[60, 1]],
  [[1514, 1]],
  [
    [60, 7],
    [590, 4],
    [1514, 1],
  ],
]

/** sameRunConfig - number `k`: every number of CPUs, lock and architecture in turn, the rest by lot. */
export function sameRunConfig(k: number): RunConfig {
  const dice = new Int32Array(4)
  prng_seed(dice, 0x5eed + k)
  const one = <T>(...from: readonly T[]): T => from[prng_below(dice, from.length)]!
  const cpus = CPUS[k % CPUS.length]!
  const lock = LOCKS[k % LOCKS.length]!
  const rx = RX[k % RX.length]!
  const profile = k % 5 === 4 ? 'decstation-3000-300' : 'modern'
  const capacity = profile === 'modern' ? 2_000_000 : 5_000
  // From an idle machine to four times what it can take.
  const rate = Math.round(capacity * one(0.02, 0.3, 1, 4) * (0.8 + 0.4 * prng_f64(dice)))
  const config: Partial<LivelockConfig> = {
    cpus,
    lock,
    seed: prng_below(dice, 1_000_000),
    flows: one(1, 16, 512, 20_000),
    arrivals: one(...ARRIVALS),
    sizes: one(...SIZES),
    queues: one(0, 0, 1, 2),
    hz: one(100, 1000),
    affinity: one('spread', 'spread', 'cpu0'),
    itrNs: one(0, 0, 50_000),
    irqWork: one(0, 0, 4),
    quota: one(0, 10),
    cycleLimit: one(100, 50),
    screend: one(...SCREEND),
    pioNs: one(0, 0, 0, 20),
  }
  const ms = profile === 'modern' ? 2 : 30
  const name = `${k}: ${cpus} CPUs, ${rx}, ${lock}, ${profile}, ${rate} pps`
  return { name, rx, profile, ms, rate, user: one(true, false), config }
}

/** sameRun - from power-on to a clean halt. */
export async function sameRun(run: RunConfig): Promise<RunRecord> {
  const config = { ...livelockDefaults(), profile: readProfile(run.profile), ...run.config }
  const machine = new Machine({ ...livelockMachine(config, run.rx), userSpin: run.user })
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: run.rate, resetLatency: true })
    const before = takeSample(machine)
    await machine.pass(run.ms)
    const point = pointBetween(machine, before, takeSample(machine))
    await machine.source(0, { on: false })
    await drain(machine, 60_000)
    const wrong = unbalanced(machine)
    if (wrong.length > 0) throw new Error(`${run.name}: packets are not conserved: ${wrong.join('; ')}`)
    const { spent: _, ...rest } = takeSample(machine)
    const record = {
      ...machine.turns!,
      point,
      rest,
      cycles: cycleShares(machine.ram, config.cpus),
      locks: [...lockStats(machine.ram, config.cpus).values()],
    }
    await machine.halt()
    const leaks = await machine.audit()
    if (leaks.length > 0) throw new Error(`${run.name}: leaked ${leaks.map(l => l.name).join(', ')}`)
    const json = JSON.stringify(record)
    return {
      hash: record.hash.toString(16).padStart(8, '0'),
      digest: createHash('sha256').update(json).digest('hex').slice(0, 16),
      forwarded: rest.fates.forwarded,
      handovers: record.handovers,
      json,
    }
  } finally {
    await machine.destroy()
  }
}
