/** spinlock.ts - uncontended lock and unlock of the machine's lock kind, bare and with interrupts off. */
import { HEAP_BASE, RAM } from '../../src/arch/ram.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_trylock,
  spin_unlock,
  spin_unlock_irqrestore,
} from '../../src/sync/spinlock.js'
import { BATCH, type MicroResult, type MicroTask, timeTasks } from '../lib/micro.js'

const i32 = RAM.i32
const lock = SPINLOCK.make(HEAP_BASE)
const COUNTER = (HEAP_BASE + 256) >> 2

const tasks: MicroTask[] = [
  {
    name: 'spin_lock + spin_unlock',
    batch() {
      for (let n = 0; n < BATCH; n++) {
        spin_lock(lock)
        i32[COUNTER]++
        spin_unlock(lock)
      }
      return i32[COUNTER]
    },
  },
  {
    name: 'spin_trylock + spin_unlock',
    batch() {
      for (let n = 0; n < BATCH; n++) {
        if (!spin_trylock(lock)) throw new Error('a free lock was not to be had')
        i32[COUNTER]++
        spin_unlock(lock)
      }
      return i32[COUNTER]
    },
  },
  {
    name: 'spin_lock_irqsave + spin_unlock_irqrestore',
    batch() {
      for (let n = 0; n < BATCH; n++) {
        const flags = spin_lock_irqsave(lock)
        i32[COUNTER]++
        spin_unlock_irqrestore(lock, flags)
      }
      return i32[COUNTER]
    },
  },
]

export default function run(ms: number): Promise<MicroResult[]> {
  spin_lock_init(lock)
  return timeTasks(tasks, ms)
}
