/** NICs that are unplugged and plugged in again while packets come, in virtual time and by the host's clock. */
import { expect, test } from 'vitest'
import { IMIX } from '../../src/hw/imix.js'
import type { GeneratorConfig } from '../../src/hw/types.js'
import { livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { Machine } from '../../src/lab/machine.js'
import { readProfile } from '../../src/lab/profile.js'
import { drain, unbalanced } from '../../src/lab/sample.js'

test.each([
  [1, 'interrupt', 'tas', 'virtual'],
  [2, 'napi', 'mcs', 'virtual'],
  [4, 'softnet', 'ticket', 'virtual'],
  [2, 'polled', 'tas', 'virtual'],
  [2, 'napi', 'tas', 'real'],
] as const)('%i CPUs, %s, %s locks, %s time', { timeout: 120_000 }, async (cpus, rx, lock, clock) => {
  const config = livelockMachine({ ...livelockDefaults(), cpus, lock, irqCostNs: 0 }, rx)
  config.ports[0]!.source = { ...(config.ports[0]!.source as GeneratorConfig), arrivals: 'poisson', sizes: IMIX }
  const machine = new Machine(clock === 'virtual' ? { ...config, profile: readProfile('modern') } : config)
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: 20_000 })
    while (machine.ram.port(1).sent === 0) await machine.pass(5)
    for (const port of [1, 0]) {
      await machine.unplug(port)
      await expect(machine.unplug(port)).rejects.toThrow(`NIC ${port} cannot be unplugged: error 19`)
      await machine.plug(port)
      await expect(machine.plug(port)).rejects.toThrow(`NIC ${port} cannot be plugged in: error 17`)
    }
    await expect(machine.unplug(7)).rejects.toThrow('NIC 7 cannot be unplugged')
    await machine.source(0, { on: false })
    await drain(machine)
    expect(unbalanced(machine)).toEqual([])
    await machine.halt()
    const devices = [...(await machine.proc('/proc/net/dev')).matchAll(/^ *(\w+):/gm)].map(m => m[1])
    expect(devices).toEqual(['eth1', 'eth0']) // in the order of their coming
    expect(await machine.audit()).toEqual([])
  } finally {
    await machine.destroy()
  }
})
