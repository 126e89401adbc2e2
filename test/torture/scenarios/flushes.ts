/**
 * flushes.ts - CPU 1 queues work that sleeps, CPU 0 stops and starts it meanwhile, and the last CPU flushes the queue: when
 * that returns all work is done, also what went to CPU 0.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { cpu_down, cpu_up } from '../../../src/irq/hotplug.js'
import { msleep } from '../../../src/irq/timer.js'
import {
  create_workqueue,
  destroy_workqueue,
  flush_workqueue,
  INIT_WORK,
  queue_work,
  WORK,
  WORKQUEUE,
} from '../../../src/irq/workqueue.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { cond_resched, kernel_thread } from '../../../src/sched/sched.js'

const ROUNDS = 15
const WORKS = 6

class shared extends Struct {
  declare done: number
  declare early: number
  declare wq: number
  declare works: number
  declare round: number
  declare flushed: number
  declare worked: number
}
const SHARED: Layout<shared> = layout('torture_flushes', shared, {
  done: word,
  early: word,
  wq: word,
  works: word,
  round: word,
  flushed: word,
  worked: word,
})
const s = DEFINE_STATIC('torture_flushes', SHARED)
const at = (field: keyof shared & string): number => s.addr + SHARED.offset(field)
const work_at = (k: number): ReturnType<typeof WORK.ref> => WORK.ref(s.works + k * 64)

const work_sym = symbol('flushes_work', function* (): Generator<void, void, void> {
  yield* msleep(3)
  fetch_add(at('worked'), 1)
})

function* queuer(): Generator<void, number, void> {
  for (let k = 1; k <= ROUNDS; k++) {
    for (let n = 0; n < WORKS; n++) queue_work(WORKQUEUE.ref(s.wq), work_at(n))
    store(at('round'), k)
    while (load(at('flushed')) < k) yield* msleep(1)
  }
  return 0
}
const queuer_sym = symbol('flushes_queuer', queuer)

function* flusher(): Generator<void, number, void> {
  const wq = WORKQUEUE.ref(s.wq)
  for (let k = 1; k <= ROUNDS; k++) {
    while (load(at('round')) < k) yield* cond_resched()
    yield* flush_workqueue(wq)
    if (load(at('worked')) !== k * WORKS) s.early++
    store(at('flushed'), k)
  }
  yield* destroy_workqueue(wq)
  kfree(s.works)
  fetch_add(s.addr, 1)
  return 0
}
const flusher_sym = symbol('flushes_flusher', flusher)

function* changer(): Generator<void, number, void> {
  for (let k = 1; k <= ROUNDS; k++) {
    while (load(at('round')) < k) yield* cond_resched()
    yield* cpu_down(1)
    yield* cpu_up(1)
  }
  fetch_add(s.addr, 1)
  return 0
}
const changer_sym = symbol('flushes_changer', changer)

export function main(): void {
  s.works = kmalloc(WORKS * 64)
  s.wq = create_workqueue('flushes')!.addr
  for (let n = 0; n < WORKS; n++) INIT_WORK(work_at(n), work_sym, n)
  kernel_thread('queuer', queuer_sym, 0, { cpu: 1 })
  kernel_thread('flusher', flusher_sym, 0, { cpu: num_cpus() - 1 })
  kernel_thread('changer', changer_sym, 0, { cpu: 0 })
}
