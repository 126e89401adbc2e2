/** #61: a counter of 64 bits in two words of a 32-bit machine is read between the two writes. */
import { atomic, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { READ_ONCE, WRITE_ONCE } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import {
  read_seqbegin,
  read_seqretry,
  SEQLOCK,
  seqlock_init,
  type seqlock_t,
  write_seqlock,
  write_sequnlock,
} from '../../sync/seqlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class stats extends Struct {
  declare sync: seqlock_t
  declare low: number
  declare high: number
}
const STATS: Layout<stats> = layout('stats', stats, {
  sync: embed(SEQLOCK),
  low: atomic(word),
  high: atomic(word),
})
const rx_bytes = DEFINE_STATIC('rx_bytes', STATS)
const LOW = rx_bytes.addr + STATS.offset('low')
const HIGH = rx_bytes.addr + STATS.offset('high')

export function setup(twin: Twin) {
  machine_init(2)
  seqlock_init(rx_bytes.sync)
  rx_bytes.low = -1 // 4 GiB less a byte
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

function fetch(fixed: boolean): [number, number] {
  for (;;) {
    const start = read_seqbegin(rx_bytes.sync)
    const low = READ_ONCE(LOW)
    const high = READ_ONCE(HIGH)
    if (!fixed || !read_seqretry(rx_bytes.sync, start)) return [low, high]
  }
}

export const actors = {
  'CPU 0'({ fixed }: Shared) {
    const [low, high] = fetch(fixed)
    BUG_ON(low === -1 && high === 1, 'the counter was never 8 GiB')
    BUG_ON(low !== -1 && high === 0, 'the counter was never that small')
  },
  'CPU 1'() {
    write_seqlock(rx_bytes.sync)
    WRITE_ONCE(LOW, 59)
    WRITE_ONCE(HIGH, 1)
    write_sequnlock(rx_bytes.sync)
  },
}
