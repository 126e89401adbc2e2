/** cores.ts - two CPUs with a receive queue each, against one CPU. */
import { Machine } from '../../src/lab/machine.js'
import { LeftOut } from '../lib/comparator.js'
import { type Measure, row } from '../lib/measure.js'
import { benchRouter } from '../lib/router.js'
import { flood } from './forward.js'

async function best(cpus: number, seed: number): Promise<number> {
  const machine = new Machine(benchRouter({ destinations: 4096, cpus, seed }))
  try {
    return Math.max(...(await flood(machine)).map(w => w.delivered_pps))
  } finally {
    await machine.destroy()
  }
}

export const cores: Measure = {
  name: 'cores',
  async run({ cores: have, seed }) {
    if (have < 3) throw new LeftOut(`two CPUs and the NIC's thread need three cores, this host has ${have}`)
    const one = await best(1, seed)
    const two = await best(2, seed)
    return [
      row({
        measure: 'forward 64 B, two CPUs with a queue each',
        unit: 'packets/s',
        softnet: two,
        rivalName: 'one CPU',
        rival: one,
        better: 'more',
        atLeast: 1.5,
        aim: 1.9,
      }),
    ]
  },
}
