/** Two or three CPUs and a spinlock of the kernel, of any kind: one inside at a time, and nobody is left asleep. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { config_addr, POWER, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../../src/sync/spinlock.js'

class guarded extends Struct {
  declare lock: spinlock_t
  declare count: number
}
const GUARDED: Layout<guarded> = layout('guarded', guarded, { lock: embed(SPINLOCK), count: word })
const g = DEFINE_STATIC('guarded', GUARDED)

export function setup(args: { cpus: number; spins: number }) {
  RAM.i32[config_addr('ncpus') >> 2] = args.cpus
  RAM.i32[config_addr('spin_limit') >> 2] = args.spins
  RAM.i32[POWER >> 2] = RUNNING
  spin_lock_init(g.lock)
  return args
}
type Shared = ReturnType<typeof setup>

export function prepare(): void {
  cpu_reset()
  local_irq_enable()
}

function cpu({ cpus }: Shared, me: { index: number }): void {
  if (me.index >= cpus) return
  spin_lock(g.lock)
  g.count++
  spin_unlock(g.lock)
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, 'CPU 2': cpu }
export const describe = describe_addr

export function invariant({ cpus }: Shared): void {
  if (g.count !== cpus) throw new Error(`counted ${g.count} of ${cpus}`)
}
