/** atomic_t.ts - atomic counters and bits. */
import { HEAP_BASE } from '../../src/arch/ram.js'
import {
  ATOMIC,
  atomic_dec_and_test,
  atomic_inc,
  atomic_read,
  clear_bit,
  test_and_set_bit,
} from '../../src/sync/atomic_t.js'
import { BATCH, type MicroResult, type MicroTask, timeTasks } from '../lib/micro.js'

const v = ATOMIC.make(HEAP_BASE)
const BITS = HEAP_BASE + 128

const tasks: MicroTask[] = [
  {
    name: 'atomic_read',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) sum += atomic_read(v)
      return sum
    },
  },
  {
    name: 'atomic_inc',
    batch() {
      for (let n = 0; n < BATCH; n++) atomic_inc(v)
      return 0
    },
  },
  {
    name: 'atomic_inc + atomic_dec_and_test',
    batch() {
      let zero = 0
      for (let n = 0; n < BATCH; n++) {
        atomic_inc(v)
        if (atomic_dec_and_test(v)) zero++
      }
      return zero
    },
  },
  {
    name: 'test_and_set_bit + clear_bit',
    batch() {
      let was = 0
      for (let n = 0; n < BATCH; n++) {
        if (test_and_set_bit(3, BITS)) was++
        clear_bit(3, BITS)
      }
      return was
    },
  },
]

export default function run(ms: number): Promise<MicroResult[]> {
  return timeTasks(tasks, ms)
}
