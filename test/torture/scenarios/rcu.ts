/** rcu.ts - readers follow a pointer that an updater keeps replacing; what is freed too early has been poisoned. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { tick } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../../src/mm/slab.js'
import {
  call_rcu,
  call_rcu_bh,
  RCU_HEAD,
  rcu_assign_pointer,
  rcu_dereference,
  type rcu_head,
  rcu_read_lock,
  rcu_read_lock_bh,
  rcu_read_unlock,
  rcu_read_unlock_bh,
  synchronize_kernel,
} from '../../../src/rcu/rcupdate.js'
import { cond_resched, kernel_thread, schedule } from '../../../src/sched/sched.js'

const UPDATES = 400
const GOOD = 0x600d
const POISON = 0x6b6b6b6b

class element extends Struct {
  declare a: number
  declare b: number
  declare rcu: rcu_head
}
const ELEMENT: Layout<element> = layout('torture_element', element, { a: word, b: word, rcu: embed(RCU_HEAD) })
const cache = kmem_cache_create('torture_element', ELEMENT, () => 8192)

class shared extends Struct {
  declare pointer: number
  declare pointer_bh: number
  declare freed: number
  declare updates: number
  declare done: number
}
const SHARED: Layout<shared> = layout('torture_rcu', shared, {
  pointer: word,
  pointer_bh: word,
  freed: word,
  updates: word,
  done: word,
})
const s = DEFINE_STATIC('torture_rcu', SHARED)
class own extends Struct {
  declare reads: number
  declare bad: number
}
const OWN: Layout<own> = layout('torture_rcu_own', own, { reads: word, bad: word })
const mine = DEFINE_PER_CPU('torture_rcu_own', OWN).mine

function make(n: number): element | null {
  const e = kmem_cache_alloc(cache)
  if (e === null) return null
  e.a = GOOD + n
  e.b = GOOD + n
  return e
}

function free_element(head: number): void {
  const e = ELEMENT.container_of('rcu', head)
  e.a = POISON
  e.b = ~POISON
  kmem_cache_free(cache, e)
  fetch_add(s.addr + SHARED.offset('freed'), 1)
}
const free_element_sym = symbol('torture_free_element', free_element)

function read(): void {
  const bh = (mine.reads & 1) !== 0
  if (bh) rcu_read_lock_bh()
  else rcu_read_lock()
  const e = ELEMENT.ref(rcu_dereference(bh ? s.addr + SHARED.offset('pointer_bh') : s.addr))
  const { a } = e
  for (let k = 0; k < 20; k++) tick(10) // interrupts come in here
  if (a !== e.b || a === POISON || a < GOOD) mine.bad++
  if (bh) rcu_read_unlock_bh()
  else rcu_read_unlock()
  mine.reads++
}

function* reader(): Generator<void, number, void> {
  while (s.done === 0) {
    for (let k = 0; k < 50; k++) read()
    yield* schedule() // a kernel thread that never switches holds every grace period up, in 2.6.11 as here
  }
  return 0
}
const reader_sym = symbol('torture_rcu_reader', reader)

function* updater(): Generator<void, number, void> {
  for (let k = 0; k < UPDATES; k++) {
    for (const bh of [false, true]) {
      const field = bh ? s.addr + SHARED.offset('pointer_bh') : s.addr
      const fresh = make(k)
      if (fresh === null) continue
      const old = ELEMENT.ref(rcu_dereference(field))
      rcu_assign_pointer(field, fresh.addr)
      if (bh) call_rcu_bh(old.rcu, free_element_sym)
      else call_rcu(old.rcu, free_element_sym)
      s.updates++
    }
    if ((k & 31) === 0) yield* synchronize_kernel()
    yield* cond_resched()
  }
  yield* synchronize_kernel()
  fetch_add(s.addr + SHARED.offset('done'), 1)
  return 0
}
const updater_sym = symbol('torture_rcu_updater', updater)

/** main - @context process */
export function main(): void {
  s.pointer = make(0)!.addr
  s.pointer_bh = make(0)!.addr
  for (let cpu = 0; cpu < num_cpus(); cpu++) kernel_thread('reader', reader_sym, cpu, { cpu })
  kernel_thread('updater', updater_sym, 0, { cpu: num_cpus() - 1 })
}
