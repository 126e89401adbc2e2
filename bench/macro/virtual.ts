/** virtual.ts - what virtual time costs: packets that a host second forwards, beside the same machine with a real clock. */
import { performance } from 'node:perf_hooks'
import { Machine } from '../../src/lab/machine.js'
import { readProfile } from '../../src/lab/profile.js'
import { type Measure, row } from '../lib/measure.js'
import { benchRouter } from '../lib/router.js'
import { flood } from './forward.js'

const DESTINATIONS = 4096
/** More than the machine of the profile forwards. */
const RATE = 3_000_000
const WARM_MS = 100
const WINDOW_MS = 40
const WINDOWS = 12

/** Packets per second of the host that one CPU forwards in virtual time, the best of some windows. */
async function virtually(seed: number): Promise<number> {
  const machine = new Machine({ ...benchRouter({ destinations: DESTINATIONS, seed }), profile: readProfile('modern') })
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: RATE })
    await machine.pass(WARM_MS)
    let best = 0
    for (let k = 0; k < WINDOWS; k++) {
      const before = machine.ram.port(1).sent
      const start = performance.now()
      await machine.pass(WINDOW_MS)
      best = Math.max(best, ((machine.ram.port(1).sent - before) / (performance.now() - start)) * 1000)
    }
    await machine.halt()
    return best
  } finally {
    await machine.destroy()
  }
}

async function freely(seed: number): Promise<number> {
  const machine = new Machine(benchRouter({ destinations: DESTINATIONS, seed }))
  try {
    return Math.max(...(await flood(machine)).map(w => w.delivered_pps))
  } finally {
    await machine.destroy()
  }
}

export const virtual: Measure = {
  name: 'virtual',
  async run(context) {
    return [
      row({
        measure: `virtual time, one CPU, ${DESTINATIONS} destinations`,
        unit: 'packets/s of the host',
        softnet: await virtually(context.seed),
        rivalName: 'real clock',
        rival: await freely(context.seed),
        better: 'more',
        atLeast: 0.2,
        aim: 0.5,
      }),
    ]
  },
}
