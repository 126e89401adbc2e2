/**
 * machine.ts - what the scenarios that use the kernel's own modules share: a machine that is up just far enough.
 *
 * Each actor is a CPU of it. The boot order is that of init/main.ts, as far as a scenario needs it.
 */
import { describe_addr } from '../../abi/section.js'
import { cost } from '../../arch/cost.js'
import { cpu_reset, local_irq_enable, set_entry } from '../../arch/cpu.js'
import { type ConfigWord, config_addr, ONLINE, POWER, RUNNING, send_vector, VEC_DEVICE } from '../../arch/machine.js'
import { RAM } from '../../arch/ram.js'
import { do_softirq } from '../../irq/softirq.js'
import { mem_init } from '../../mm/init.js'
import { add_preempt_count, HARDIRQ_OFFSET } from '../../sync/preempt.js'

/** Where a scenario has its CPU look for interrupts: `tick(HERE)`. */
export const HERE = cost('zoo')

/**
 * A waiter at a lock spins and does not sleep: then the word that it looks at is the lock, and whoever reads of a deadlock
 * sees who holds it.
 */
const SPIN_LIMIT = 100_000

/** machine_init - power, configuration and memory; on CPU 0, in `setup`. */
export function machine_init(ncpus: number, words: Partial<Record<ConfigWord, number>> = {}): void {
  const config = { ncpus, hz: 1000, spin_limit: SPIN_LIMIT, skbs: 32, jumbo: 1, ...words }
  for (const [name, value] of Object.entries(config)) RAM.i32[config_addr(name as ConfigWord) >> 2] = value
  RAM.i32[POWER >> 2] = RUNNING
  RAM.i32[ONLINE >> 2] = (1 << ncpus) - 1
  mem_init()
}

/** cpu_init - on each actor's thread, in `prepare`. `interrupt`: what the device's interrupt does. */
export function cpu_init(me: { index: number }, interrupt?: () => void): void {
  if (me.index > 0) mem_init()
  set_entry({
    describe: addr => describe_addr(addr) ?? `0x${addr.toString(16)}`,
    interrupt: () => {
      add_preempt_count(HARDIRQ_OFFSET)
      interrupt?.()
      add_preempt_count(-HARDIRQ_OFFSET)
      return do_softirq()
    },
  })
  cpu_reset()
  local_irq_enable()
}

/** raise_interrupt - of the device, at a CPU. */
export function raise_interrupt(cpu: number): void {
  send_vector(cpu, VEC_DEVICE)
}
