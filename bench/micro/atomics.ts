/** atomics.ts - what an access to shared memory costs: builtins of the language, the machine's WebAssembly twin, plain. */
import { plain_ops, wasm_ops } from '../../src/arch/atomic.js'
import { HEAP_BASE, RAM } from '../../src/arch/ram.js'
import { BATCH, type MicroResult, type MicroTask, timeTasks } from '../lib/micro.js'

const i32 = RAM.i32
const AT = HEAP_BASE
const INDEX = HEAP_BASE >> 2

const tasks: MicroTask[] = [
  {
    name: 'plain element',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) sum += i32[INDEX + (n & 15)]
      return sum
    },
  },
  {
    name: 'Atomics.load',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) sum += Atomics.load(i32, INDEX)
      return sum
    },
  },
  {
    name: 'Atomics.store',
    batch() {
      for (let n = 0; n < BATCH; n++) Atomics.store(i32, INDEX, n)
      return 0
    },
  },
  {
    name: 'Atomics.add',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) sum += Atomics.add(i32, INDEX, 1)
      return sum
    },
  },
  {
    name: 'Atomics.compareExchange',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) sum += Atomics.compareExchange(i32, INDEX, 0, 1)
      return sum
    },
  },
  {
    name: 'load (WebAssembly)',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) sum += wasm_ops.load(AT)
      return sum
    },
  },
  {
    name: 'store (WebAssembly)',
    batch() {
      for (let n = 0; n < BATCH; n++) wasm_ops.store(AT, n)
      return 0
    },
  },
  {
    name: 'fetch_add (WebAssembly)',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) sum += wasm_ops.fetch_add(AT, 1)
      return sum
    },
  },
  {
    name: 'cmpxchg + store (WebAssembly)',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) {
        sum += wasm_ops.cmpxchg(AT, 0, 1)
        wasm_ops.store(AT, 0)
      }
      return sum
    },
  },
  {
    name: 'cmpxchg + store (plain twin)',
    batch() {
      let sum = 0
      for (let n = 0; n < BATCH; n++) {
        sum += plain_ops.cmpxchg(AT, 0, 1)
        plain_ops.store(AT, 0)
      }
      return sum
    },
  },
]

export default function run(ms: number): Promise<MicroResult[]> {
  i32[INDEX] = 0
  return timeTasks(tasks, ms)
}
