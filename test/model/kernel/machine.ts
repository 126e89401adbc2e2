/** What the scenarios that run whole CPUs share: power-on, a CPU until the power goes, a clock, and what must hold in the end. */
import { fetch_or, load } from '../../../src/arch/atomic.js'
import { cpu_area, cpu_id, cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import {
  type ConfigWord,
  config_addr,
  num_cpus,
  ONLINE,
  POWER,
  PowerOff,
  RUNNING,
  send_vector,
  VEC_TIMER,
} from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { CPU_PARKED } from '../../../src/arch/registers.js'
import { carve, init_subsystems, leak_audit } from '../../../src/init/main.js'
import type { PortSetup } from '../../../src/init/setup.js'
import { cpu_loop, forget_tasks } from '../../../src/sched/sched.js'

export const ip = (a: number, b: number, c: number, d: number): number => (a << 24) | (b << 16) | (c << 8) | d

/** eth_ports - NICs eth0, eth1 and so on with the addresses 10.0.k.1/24, for configure_network. */
export function eth_ports(n: number, queues: number): PortSetup[] {
  return Array.from({ length: n }, (_, k) => ({
    name: `eth${k}`,
    mac: { hi: 0x02000000, lo: k + 1 },
    mtu: 1500,
    addresses: [{ local: ip(10, 0, k, 1), prefixlen: 24 }],
    queues,
    promisc: false,
  }))
}

/** power_on - in `setup`: the configuration, and what CPU 0 lays out for all. */
export function power_on(ncpus: number, words: Partial<Record<ConfigWord, number>>): void {
  const config = { ncpus, hz: 1000, spin_limit: 1, seed: 1, slab_shift: 4, ...words }
  for (const [name, value] of Object.entries(config)) RAM.i32[config_addr(name as ConfigWord) >> 2] = value
  RAM.i32[POWER >> 2] = RUNNING
  cpu_reset()
  init_subsystems(ncpus)
}

/** secondary - in `prepare`, on every thread: the other CPUs of the machine join. */
export function secondary(): void {
  if (cpu_id === 0 || cpu_id >= num_cpus()) return
  cpu_reset()
  carve()
  fetch_or(ONLINE, 1 << cpu_id)
  local_irq_enable()
}

/** cpu - an actor: what a CPU does until somebody turns the machine off. */
export function cpu(): void {
  if (cpu_id >= num_cpus()) return
  forget_tasks()
  try {
    cpu_loop()
  } catch (error) {
    if (!(error instanceof PowerOff)) throw error
  }
}

/** clock_chip - so many ticks for each CPU, whenever the strategy says so. */
export function clock_chip(ticks: number): void {
  for (let k = 0; k < ticks; k++)
    for (let n = 0; n < num_cpus(); n++) if ((load(ONLINE) & (1 << n)) !== 0) send_vector(n, VEC_TIMER)
}

/**
 * clock_for_the_idle - ticks for each CPU that sleeps, until the power goes: where grace periods have to end. `meanwhile`: what else goes
 * on outside of the CPUs. For strategies that keep nobody from his turn for long.
 */
export function clock_for_the_idle(meanwhile: () => void): void {
  while (load(POWER) === RUNNING) {
    meanwhile()
    for (let n = 0; n < num_cpus(); n++) if (load(cpu_area(n) + CPU_PARKED) !== 0) send_vector(n, VEC_TIMER)
  }
}

/** nothing_leaked - in `invariant`. */
export function nothing_leaked(): void {
  const leaks = leak_audit()
  if (leaks.length === 0) return
  const text = leaks.map(l => `${l.used} of ${l.name}`).join(', ')
  throw Object.assign(new Error(`leaked ${text}`), { detector: 'leak' })
}
