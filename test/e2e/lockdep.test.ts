/** The whole receive and transmit path of real machines, watched by lockdep: no order of locks that could deadlock. */
import { expect, test } from 'vitest'
import { livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { Machine, sleep } from '../../src/lab/machine.js'
import type { RxArch } from '../../src/lab/types.js'
import { expectNoReports } from '../torture/harness.js'

test.each<[RxArch, number, 'tas' | 'ticket' | 'mcs']>([
  ['interrupt', 1, 'tas'],
  ['softnet', 2, 'ticket'],
  ['napi', 2, 'tas'],
  ['napi', 4, 'mcs'],
  ['polled', 2, 'tas'],
])('%s, %i CPUs, %s', async (rx, cpus, lock) => {
  const config = { ...livelockDefaults(), cpus, lock, flows: 64, destinations: 256 }
  const machine = new Machine({ ...livelockMachine(config, rx), lockdep: true })
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: 100_000 })
    await sleep(300)
    await machine.source(0, { on: false })
    await sleep(50)
    await machine.halt()
    machine.check()
    expectNoReports(machine)
    // It has looked: the classes of the path are there.
    const graph = machine.ram.address('lockdep', 'graph') >> 2
    const classes = Array.from({ length: 256 }, (_, k) => machine.ram.i32[graph + k * 4]!).filter(h => h !== 0)
    expect(classes.length).toBeGreaterThan(8)
    expect(await machine.audit()).toEqual([])
  } finally {
    await machine.destroy()
  }
})
