/** CPU 0 moves jiffies, CPU 1 looks at them: meant so. A word beside them that nobody marks is none of that. */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { READ_ONCE, store, WRITE_ONCE } from '../../../src/arch/atomic.js'
import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { config_addr, JIFFIES, POWER, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { jiffies } from '../../../src/irq/timer.js'

class beside extends Struct {
  declare value: number
}
const BESIDE: Layout<beside> = layout('beside', beside, { value: word })
const b = DEFINE_STATIC('beside', BESIDE)

export function setup(args: 'jiffies' | 'once' | 'plain') {
  RAM.i32[config_addr('ncpus') >> 2] = 2
  RAM.i32[POWER >> 2] = RUNNING
  return { how: args }
}
type Shared = ReturnType<typeof setup>

export function prepare(): void {
  cpu_reset()
  local_irq_enable()
}

export const actors = {
  'CPU 0'({ how }: Shared): void {
    if (how === 'jiffies') store(JIFFIES, 7)
    else if (how === 'once') WRITE_ONCE(b.addr, 1)
    else b.value = 1
  },
  'CPU 1'({ how }: Shared): number {
    if (how === 'jiffies') return jiffies()
    return how === 'once' ? READ_ONCE(b.addr) : b.value
  },
}
export const describe = describe_addr
