/** harness.ts - boots a machine without ports, runs a scenario on all its CPUs, waits for it, audits. */
import { Machine, type MachineConfig, sleep } from '../../src/lab/machine.js'
import type { LockKind } from '../../src/lab/types.js'

export interface Torture {
  cpus: number
  lock?: LockKind
  scenario: string
  /** Static variable with the word `done`, and the value it reaches. */
  variable: string
  done: number
  patienceMs?: number
  /** Fill objects that are freed and look at them when they are given out again. */
  poison?: boolean
  /** What else the machine is made of. */
  config?: Partial<MachineConfig>
}

/** bare - a machine without ports that runs a scenario. */
export function bare(cpus: number, lock: LockKind, scenario: string): MachineConfig {
  return {
    cpus,
    rx: 'napi',
    lock,
    hz: 1000,
    irqCostNs: 0,
    irqWork: 0,
    seed: 1,
    ports: [],
    routes: [],
    neighbours: [],
    userSpin: false,
    trace: false,
    lockdep: true,
    programs: [new URL(`./scenarios/${scenario}.js`, import.meta.url).href],
  }
}

/** torture - `check` reads the machine's RAM when the scenario has ended. */
export async function torture(t: Torture, check: (machine: Machine) => void): Promise<void> {
  const machine = new Machine({ ...bare(t.cpus, t.lock ?? 'tas', t.scenario), ...t.config })
  try {
    await machine.load()
    if (t.poison === true) machine.ram.setConfig('slab_poison', 1)
    await machine.powerOn()
    const end = Date.now() + (t.patienceMs ?? 40_000)
    while (machine.ram.word(t.variable, 'done') < t.done) {
      machine.check()
      if (Date.now() > end)
        throw new Error(
          `${t.scenario} on ${t.cpus} CPUs hangs: done ${machine.ram.word(t.variable, 'done')} of ${t.done}`,
        )
      await sleep(5)
    }
    await sleep(20) // what the scenario left to softirqs
    await machine.halt()
    machine.check()
    check(machine)
    expectNoReports(machine)
    const leaks = await machine.audit()
    if (leaks.length > 0) throw new Error(`leaked: ${leaks.map(l => `${l.used} of ${l.name}`).join(', ')}`)
  } finally {
    await machine.destroy()
  }
}

/** expectNoReports - lockdep, which watched the machine, has found nothing. */
export function expectNoReports(machine: Machine): void {
  const report = machine.ram.lockdepReport()
  if (report !== '') throw new Error(`lockdep: ${report}`)
}
