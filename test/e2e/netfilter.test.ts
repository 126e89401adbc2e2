/** A machine that boots with a rule file, and its counters when it is halted: two CPUs count in copies of their own. */
import { expect, test } from 'vitest'
import { livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { parseIptables } from '../../src/lab/iptables/parse.js'
import { Machine, sleep } from '../../src/lab/machine.js'
import { drain, takeSample } from '../../src/lab/sample.js'

test('what was received is what the rule has counted, and all of it went on', async () => {
  const rules = '*filter\n-A FORWARD -p udp -m state --state NEW,ESTABLISHED -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n'
  const machine = new Machine({
    ...livelockMachine({ ...livelockDefaults(), cpus: 2, irqCostNs: 0 }, 'napi'),
    iptables: parseIptables(rules, 'rules'),
  })
  try {
    await machine.powerOn()
    await machine.source(0, { on: true, rate: 2000 })
    await sleep(300)
    await machine.source(0, { on: false })
    await drain(machine)
    await machine.halt()
    const { forwarded } = takeSample(machine).fates
    expect(forwarded).toBeGreaterThan(10)
    const saved = await machine.iptables('filter')
    expect(saved).toContain(`[${forwarded}:`)
    expect(saved).toContain('[0:0] -A FORWARD -j DROP')
    expect(await machine.iptables('mangle')).toBe(null)
    expect(await machine.proc('/proc/modules')).toContain('iptable_filter')
    expect(await machine.audit()).toEqual([])
  } finally {
    await machine.destroy()
  }
})
