/**
 * rcu.ts - rcutorture: readers follow a pointer that a writer keeps replacing.
 *
 * What was replaced goes through a pipe: after each grace period it becomes one older, and at the end it is freed. So a reader
 * may see an element that is 0 or 1 grace periods old, for it may have fetched the pointer just before; one that is older has
 * been taken from under it. What is freed is marked as such besides. The busted twin waits for no grace period.
 */
import { atomic, bytes, embed, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { fetch_add, load, store } from '../arch/atomic.js'
import { burn, cpu_relax } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { msleep } from '../irq/timer.js'
import { RCU_FLAVOURS, RCU_TORTURE_PIPE_LEN, RCU_TORTURE_SLOTS } from '../lib/torture.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../mm/slab.js'
import {
  call_rcu,
  call_rcu_bh,
  RCU_HEAD,
  rcu_assign_pointer,
  rcu_batches_completed,
  rcu_batches_completed_bh,
  rcu_dereference,
  rcu_dereference_protected,
  type rcu_head,
  rcu_read_lock,
  rcu_read_lock_bh,
  rcu_read_unlock,
  rcu_read_unlock_bh,
  synchronize_kernel,
} from '../rcu/rcupdate.js'
import { cond_resched, schedule } from '../sched/sched.js'
import {
  torture_busted,
  torture_create_kthread,
  torture_kthread_stopping,
  torture_must_stop,
  torture_random,
  torture_wants,
} from './torture.js'

const i32 = RAM.i32
const ALIVE = 0x600d
const FREED = 0x6b6b6b6b
const [, RCU_BH, RCU_SYNC] = RCU_FLAVOURS.map((_, k) => k)

class rcu_torture extends Struct {
  declare mbtest: number
  declare pipe_count: number
  declare flavour: number
  declare rcu: rcu_head
}
const ELEMENT: Layout<rcu_torture> = layout('rcu_torture', rcu_torture, {
  mbtest: word,
  pipe_count: word, // grace periods since it was taken out of sight
  flavour: word,
  rcu: embed(RCU_HEAD),
})
const cache = kmem_cache_create('torture_rcu', ELEMENT, () => 8192)

class shared extends Struct {
  declare current: number
  declare writers: number
  declare version: number
  declare alloc: number
  declare alloc_fail: number
  declare free: number
  declare wcount: number
}
const SHARED: Layout<shared> = layout('torture_rcu', shared, {
  current: bytes(RCU_FLAVOURS.length * 4), // the pointers
  writers: atomic(word), // that still write
  version: atomic(word), // replacements
  alloc: atomic(word),
  alloc_fail: atomic(word),
  free: atomic(word),
  wcount: bytes(RCU_TORTURE_SLOTS * 4), // elements that came to each place of the pipe
})
const s = DEFINE_STATIC('torture_rcu', SHARED)
const WRITERS = s.addr + SHARED.offset('writers')

class per_cpu extends Struct {
  declare reads: number
  declare mberror: number
  declare pipe: number
  declare batch: number
}
const PER_CPU: Layout<per_cpu> = layout('torture_rcu_own', per_cpu, {
  reads: own(word),
  mberror: own(word), // what was read had been freed, or was never set up
  pipe: own(bytes(RCU_TORTURE_SLOTS * 4)), // how old what was read was
  batch: own(bytes(RCU_TORTURE_SLOTS * 4)), // grace periods that ended while it was read
})
const mine = DEFINE_PER_CPU('torture_rcu_own', PER_CPU).mine

function count(field: keyof shared & string): void {
  fetch_add(s.addr + SHARED.offset(field), 1)
}
function slot(n: number): number {
  return Math.min(Math.max(n, 0), RCU_TORTURE_SLOTS - 1)
}

// ---- elements -------------------------------------------------------------------------------------------------------

function rcu_torture_alloc(flavour: number): rcu_torture | null {
  const p = kmem_cache_alloc(cache)
  count(p === null ? 'alloc_fail' : 'alloc')
  if (p === null) return null
  p.mbtest = ALIVE
  p.pipe_count = 0
  p.flavour = flavour
  return p
}

function rcu_torture_free(p: rcu_torture): void {
  p.mbtest = FREED
  kmem_cache_free(cache, p)
  count('free')
}

/** One grace period older. @returns true when it has been through the pipe, and is freed */
function rcu_torture_age(p: rcu_torture): boolean {
  fetch_add(s.wcount + slot(p.pipe_count) * 4, 1)
  const age = p.pipe_count + 1
  store(p.addr + ELEMENT.offset('pipe_count'), age)
  if (age < RCU_TORTURE_PIPE_LEN) return false
  rcu_torture_free(p)
  return true
}

function rcu_torture_cb(head: number): void {
  const p = ELEMENT.container_of('rcu', head)
  if (!rcu_torture_age(p)) deferred_free(p)
}
const rcu_torture_cb_sym = symbol('rcu_torture_cb', rcu_torture_cb)

function deferred_free(p: rcu_torture): void {
  if (torture_busted())
    rcu_torture_cb(p.rcu.addr) // no grace period at all: the reader must notice
  else if (p.flavour === RCU_BH) call_rcu_bh(p.rcu, rcu_torture_cb_sym)
  else call_rcu(p.rcu, rcu_torture_cb_sym)
}

// ---- threads --------------------------------------------------------------------------------------------------------

/** Mostly as long as a look at a list takes; sometimes over several grace periods. */
function read_delay(random: (n: number) => number): void {
  const dice = random(1024)
  if (dice === 0) burn(5_000_000)
  else if (dice < 16) burn(200_000)
  for (let k = 0; k < 20; k++) cpu_relax() // interrupts come in here
}

function read(flavour: number, random: (n: number) => number): void {
  const bh = flavour === RCU_BH
  if (bh) rcu_read_lock_bh()
  else rcu_read_lock()
  const completed = bh ? rcu_batches_completed_bh() : rcu_batches_completed()
  const p = ELEMENT.at(rcu_dereference(s.current + flavour * 4))
  if (p !== null) {
    if (p.mbtest !== ALIVE) mine.mberror++
    read_delay(random)
    const age = load(p.addr + ELEMENT.offset('pipe_count'))
    if (p.mbtest !== ALIVE) mine.mberror++
    i32[(mine.pipe >> 2) + slot(age)]++
    const batches = (bh ? rcu_batches_completed_bh() : rcu_batches_completed()) - completed
    i32[(mine.batch >> 2) + slot(batches)]++
    mine.reads++
  }
  if (bh) rcu_read_unlock_bh()
  else rcu_read_unlock()
}

function* rcu_torture_reader(): Generator<void, number, void> {
  const random = torture_random(1)
  const chosen = RCU_FLAVOURS.map((_, k) => k).filter(torture_wants)
  while (load(WRITERS) !== 0) {
    for (let k = 0; k < 50; k++) for (const flavour of chosen) read(flavour, random)
    yield* schedule() // a kernel thread that never switches holds every grace period up, in 2.6.11 as here
  }
  torture_kthread_stopping()
  return 0
}
const reader_sym = symbol('rcu_torture_reader', rcu_torture_reader)

/** What was replaced goes into the pipe; `removed` are those that wait for synchronize_kernel. */
function* retire(p: rcu_torture, removed: rcu_torture[]): Generator<void, void, void> {
  fetch_add(s.wcount + slot(p.pipe_count) * 4, 1)
  p.pipe_count++
  if (p.flavour !== RCU_SYNC || torture_busted()) {
    deferred_free(p)
    return
  }
  removed.push(p)
  yield* grace_period(removed)
}

function* grace_period(removed: rcu_torture[]): Generator<void, void, void> {
  yield* synchronize_kernel()
  const left = removed.splice(0).filter(p => !rcu_torture_age(p))
  removed.push(...left)
}

function* rcu_torture_writer(): Generator<void, number, void> {
  const random = torture_random(2)
  const chosen = RCU_FLAVOURS.map((_, k) => k).filter(torture_wants)
  const removed: rcu_torture[] = []
  for (let round = 0; !torture_must_stop(round); round++) {
    for (const flavour of chosen) {
      const fresh = rcu_torture_alloc(flavour)
      if (fresh === null) continue
      const field = s.current + flavour * 4
      const old = ELEMENT.ref(rcu_dereference_protected(field))
      rcu_assign_pointer(field, fresh.addr)
      yield* retire(old, removed)
      count('version')
    }
    if ((round & 31) === 0) yield* synchronize_kernel()
    if (random(4) === 0) yield* msleep(1)
    yield* cond_resched()
  }
  for (const flavour of chosen) {
    const old = ELEMENT.ref(rcu_dereference_protected(s.current + flavour * 4))
    rcu_assign_pointer(s.current + flavour * 4, 0)
    yield* retire(old, removed)
  }
  while (removed.length > 0) yield* grace_period(removed)
  yield* synchronize_kernel()
  fetch_add(WRITERS, -1)
  torture_kthread_stopping()
  return 0
}
const writer_sym = symbol('rcu_torture_writer', rcu_torture_writer)

/** Waits for grace periods and changes nothing, so that there are more of them, with other beginnings. */
function* rcu_torture_fakewriter(): Generator<void, number, void> {
  const random = torture_random(3)
  while (load(WRITERS) !== 0) {
    yield* msleep(1 + random(10))
    yield* synchronize_kernel()
  }
  torture_kthread_stopping()
  return 0
}
const fakewriter_sym = symbol('rcu_torture_fakewriter', rcu_torture_fakewriter)

/** main - @context process */
export function main(): void {
  for (let k = 0; k < RCU_FLAVOURS.length; k++) {
    if (torture_wants(k)) i32[(s.current >> 2) + k] = rcu_torture_alloc(k)!.addr
  }
  s.writers = 1
  for (let cpu = 0; cpu < num_cpus(); cpu++) torture_create_kthread('rcu_torture_reader', reader_sym, cpu)
  torture_create_kthread('rcu_torture_fakewriter', fakewriter_sym, 0)
  torture_create_kthread('rcu_torture_writer', writer_sym, num_cpus() - 1)
}
