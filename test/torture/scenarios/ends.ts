/**
 * ends.ts - completions that lie in memory which the waiter gives back as soon as it may go on: who completes must not
 * touch them any more.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { cpu_relax } from '../../../src/arch/cpu.js'
import { RAM } from '../../../src/arch/ram.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import {
  COMPLETION,
  complete,
  complete_all,
  init_completion,
  wait_for_completion,
} from '../../../src/sched/completion.js'
import { kernel_thread, schedule } from '../../../src/sched/sched.js'

const ROUNDS = 10_000
const i32 = RAM.i32

class shared extends Struct {
  declare done: number
  declare touched: number
  declare box: number
}
const SHARED: Layout<shared> = layout('torture_ends', shared, { done: word, touched: word, box: word })
const s = DEFINE_STATIC('torture_ends', SHARED)
const BOX = s.addr + SHARED.offset('box')

/** The same memory, somebody else's now: filled so that a walk of what was a wait queue ends. @returns was it changed? */
function reuse(): boolean {
  const addr = kmalloc(64)
  for (let w = 1; w < 16; w++) i32[(addr >> 2) + w] = 7000 + w
  for (let pause = 300; pause > 0; pause--) load(addr)
  let changed = i32[addr >> 2] !== 0
  for (let w = 1; w < 16; w++) changed ||= i32[(addr >> 2) + w] !== 7000 + w
  kfree(addr)
  return changed
}

function* waiter(): Generator<void, number, void> {
  for (let k = 0; k < ROUNDS; k++) {
    const x = COMPLETION.ref(kmalloc(64))
    init_completion(x)
    store(BOX, x.addr | (k & 1))
    while (load(BOX) !== 0) cpu_relax()
    for (let pause = (k & 63) * 4; pause > 0; pause--) load(x.addr)
    yield* wait_for_completion(x)
    kfree(x.addr)
    if (reuse()) s.touched++
    if ((k & 15) === 0) yield* schedule()
  }
  store(BOX, -1)
  fetch_add(s.addr, 1)
  return 0
}
const waiter_sym = symbol('ends_waiter', waiter)

function* completer(): Generator<void, number, void> {
  for (;;) {
    let box: number
    while ((box = load(BOX)) === 0) cpu_relax()
    if (box === -1) return 0
    store(BOX, 0)
    if ((box & 1) !== 0) complete_all(COMPLETION.ref(box & ~1))
    else complete(COMPLETION.ref(box))
  }
}
const completer_sym = symbol('ends_completer', completer)

export function main(): void {
  kernel_thread('waiter', waiter_sym, 0, { cpu: 0 })
  kernel_thread('completer', completer_sym, 0, { cpu: 1 })
}
