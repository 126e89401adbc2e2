/** rcu.ts - the read side of RCU: in 2.6.11 it only keeps the CPU from being given away. */
import { HEAP_BASE, RAM } from '../../src/arch/ram.js'
import {
  rcu_dereference,
  rcu_read_lock,
  rcu_read_lock_bh,
  rcu_read_unlock,
  rcu_read_unlock_bh,
} from '../../src/rcu/rcupdate.js'
import { BATCH, type MicroResult, type MicroTask, timeTasks } from '../lib/micro.js'

const POINTER = HEAP_BASE + 256

const tasks: MicroTask[] = [
  {
    name: 'rcu_read_lock + rcu_read_unlock',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) {
        rcu_read_lock()
        sum += rcu_dereference(POINTER)
        rcu_read_unlock()
      }
      return sum
    },
  },
  {
    name: 'rcu_read_lock_bh + rcu_read_unlock_bh',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) {
        rcu_read_lock_bh()
        sum += rcu_dereference(POINTER)
        rcu_read_unlock_bh()
      }
      return sum
    },
  },
]

export default function run(ms: number): Promise<MicroResult[]> {
  RAM.i32[POINTER >> 2] = 1
  return timeTasks(tasks, ms)
}
