/** What each of the kernel's detectors must catch, and the same done right: `broken` says which it is. */
import { atomic, bytes, embed, type Layout, layout, ptr, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { load, store } from '../../../src/arch/atomic.js'
import { cpu_relax, local_irq_disable, local_irq_enable } from '../../../src/arch/cpu.js'
import { JIFFIES } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { do_softirq, open_softirq, raise_softirq, TIMER_SOFTIRQ } from '../../../src/irq/softirq.js'
import { tasklets_init } from '../../../src/irq/tasklet.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, objects_out } from '../../../src/mm/slab.js'
import { prove_stall_after } from '../../../src/rcu/prove.js'
import {
  call_rcu,
  call_rcu_bh,
  RCU_HEAD,
  rcu_assign_pointer,
  rcu_check_callbacks,
  rcu_dereference,
  rcu_dereference_protected,
  type rcu_head,
  rcu_init,
  rcu_read_lock,
  rcu_read_lock_bh,
  rcu_read_unlock,
  rcu_read_unlock_bh,
} from '../../../src/rcu/rcupdate.js'
import { local_bh_disable } from '../../../src/sync/bh.js'
import {
  add_preempt_count,
  HARDIRQ_OFFSET,
  might_sleep,
  preempt_disable,
  preempt_enable,
} from '../../../src/sync/preempt.js'
import { refcount_dec_and_test, refcount_inc } from '../../../src/sync/refcount.js'
import {
  read_seqbegin,
  read_seqretry,
  SEQLOCK,
  seqlock_init,
  type seqlock_t,
  write_seqlock,
  write_sequnlock,
} from '../../../src/sync/seqlock.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../../src/sync/spinlock.js'
import { cpu_init, machine_init, raise_interrupt } from '../../../src/zoo/kit/machine.js'

export interface Args {
  name: keyof typeof CASES
  broken: boolean
}

class thing extends Struct {
  declare value: number
  declare refcnt: number
  declare rcu: rcu_head
}
const THING: Layout<thing> = layout('thing', thing, { value: word, refcnt: atomic(word), rcu: embed(RCU_HEAD) })
const things = kmem_cache_create('thing', THING, () => 8)
class box extends Struct {
  declare thing: thing | null
  declare lock: spinlock_t
  declare seq: seqlock_t
  declare low: number
  declare high: number
  declare counted: number
  declare spare: number
}
const BOX: Layout<box> = layout('box', box, {
  thing: ptr(() => THING),
  lock: embed(SPINLOCK),
  seq: embed(SEQLOCK),
  low: word,
  high: word,
  counted: word,
  spare: bytes(8),
})
const b = DEFINE_STATIC('box', BOX)

const free_sym = symbol('test_thing_free', (head: number) => kmem_cache_free(things, THING.container_of('rcu', head)))

/** Ticks: grace periods begin and end, and what is due is called back. `user`: out of user mode, or out of a reader. */
function ticks(user: boolean, n = 4): void {
  for (let k = 0; k < n; k++) {
    add_preempt_count(HARDIRQ_OFFSET)
    rcu_check_callbacks(user)
    add_preempt_count(-HARDIRQ_OFFSET)
    do_softirq()
  }
}

function update(broken: boolean): void {
  const old = THING.ref(rcu_dereference_protected(b.addr))
  rcu_assign_pointer(b.addr, 0)
  if (broken) kmem_cache_free(things, old)
  else call_rcu(old.rcu, free_sym)
}

function read(): number {
  rcu_read_lock()
  const seen = THING.at(rcu_dereference(b.addr))?.value ?? 0
  rcu_read_unlock()
  return seen
}

/** Both CPUs have done this before one of them goes on. */
function in_step(me: number, round: number, act: () => void): void {
  act()
  store(b.spare + me * 4, round)
  while (load(b.spare + (1 - me) * 4) < round) cpu_relax()
}

type Actor = (broken: boolean) => void
const nothing: Actor = () => {}

/** By name: what two CPUs do. */
const CASES = {
  'dereference outside a reader': [
    broken => {
      if (broken) rcu_dereference(b.addr)
      else read()
    },
    nothing,
  ],
  'freed without a grace period': [
    () => {
      read()
      ticks(true)
    },
    broken => {
      update(broken)
      ticks(true)
    },
  ],
  'the wrong flavour': [
    () => {
      rcu_read_lock()
      const t = THING.at(rcu_dereference(b.addr))
      ticks(false) // for rcu_bh that is a quiescent state
      if (t !== null) b.low = t.value
      rcu_read_unlock()
      ticks(true)
    },
    broken => {
      const old = THING.ref(rcu_dereference_protected(b.addr))
      rcu_assign_pointer(b.addr, 0)
      if (broken) call_rcu_bh(old.rcu, free_sym)
      else call_rcu(old.rcu, free_sym)
      ticks(true)
    },
  ],
  'queued to be freed, and still published': [
    () => {
      ticks(true)
      read()
      ticks(true)
    },
    broken => {
      const old = THING.ref(rcu_dereference_protected(b.addr))
      if (!broken) rcu_assign_pointer(b.addr, 0)
      call_rcu(old.rcu, free_sym)
      ticks(true)
      if (broken) rcu_assign_pointer(b.addr, 0)
    },
  ],
  'a reader sleeps': [
    broken => {
      rcu_read_lock()
      if (broken) might_sleep()
      rcu_read_unlock()
      might_sleep()
    },
    nothing,
  ],
  'unlocked without a lock': [
    broken => {
      if (!broken) rcu_read_lock_bh()
      if (broken) local_bh_disable()
      rcu_read_unlock_bh()
    },
    nothing,
  ],
  'a grace period that does not end': [
    broken => {
      // A thread that polls: interrupted in the kernel, and never out of it.
      if (broken) preempt_disable()
      for (let k = 1; k <= 8; k++) {
        store(JIFFIES, k)
        in_step(0, k, () => ticks(!broken, 1))
      }
      if (broken) preempt_enable()
    },
    () => {
      call_rcu(THING.ref(rcu_dereference_protected(b.addr)).rcu, free_sym)
      rcu_assign_pointer(b.addr, 0)
      for (let k = 1; k <= 8; k++) in_step(1, k, () => ticks(true, 1))
    },
  ],
  'sleep under a spinlock': [
    broken => {
      if (broken) spin_lock(b.lock)
      might_sleep()
      if (broken) spin_unlock(b.lock)
    },
    nothing,
  ],
  'sleep with interrupts off': [
    broken => {
      local_irq_disable()
      if (!broken) local_irq_enable()
      might_sleep()
      local_irq_enable()
    },
    nothing,
  ],
  'preemption left disabled': [
    broken => {
      preempt_disable()
      if (!broken) preempt_enable()
    },
    nothing,
  ],
  'interrupts left off': [
    broken => {
      local_irq_disable()
      if (!broken) local_irq_enable()
    },
    nothing,
  ],
  'a lock left held': [
    broken => {
      spin_lock(b.lock)
      if (!broken) spin_unlock(b.lock)
      else preempt_enable()
    },
    nothing,
  ],
  'a softirq leaves bottom halves off': [
    broken => {
      b.low = broken ? 1 : 0
      raise_softirq(TIMER_SOFTIRQ)
      do_softirq()
    },
    nothing,
  ],
  'used after it was freed': [
    broken => {
      const t = kmem_cache_alloc(things)!
      if (!broken) t.value = 1
      kmem_cache_free(things, t)
      if (broken) t.value = 1
    },
    nothing,
  ],
  'used on another CPU after it was freed': [
    broken => {
      spin_lock(b.lock)
      const t = b.thing
      if (!broken && t !== null) refcount_inc(t.addr + REFCNT)
      spin_unlock(b.lock)
      if (t === null) return
      t.value = 2
      if (!broken && refcount_dec_and_test(t.addr + REFCNT)) kmem_cache_free(things, t)
    },
    () => {
      spin_lock(b.lock)
      const t = b.thing!
      b.thing = null
      spin_unlock(b.lock)
      if (refcount_dec_and_test(t.addr + REFCNT)) kmem_cache_free(things, t)
    },
  ],
  'freed twice': [
    broken => {
      const t = kmem_cache_alloc(things)!
      kmem_cache_free(things, t)
      if (broken) kmem_cache_free(things, t)
    },
    nothing,
  ],
  'a reference from zero': [
    broken => {
      const t = kmem_cache_alloc(things)!
      store(t.addr + REFCNT, broken ? 0 : 1)
      refcount_inc(t.addr + REFCNT)
      kmem_cache_free(things, t)
    },
    nothing,
  ],
  'one reference too many dropped': [
    broken => {
      const t = kmem_cache_alloc(things)!
      store(t.addr + REFCNT, broken ? 1 : 2)
      refcount_dec_and_test(t.addr + REFCNT)
      if (refcount_dec_and_test(t.addr + REFCNT) || broken) kmem_cache_free(things, t)
    },
    nothing,
  ],
  'used without read_seqretry': [
    broken => {
      let seq: number
      do {
        seq = read_seqbegin(b.seq)
        b.counted = b.low + b.high
      } while (!broken && read_seqretry(b.seq, seq))
    },
    writes,
  ],
  'used although read_seqretry said no': [
    broken => {
      for (;;) {
        const seq = read_seqbegin(b.seq)
        const sum = b.low + b.high
        if (read_seqretry(b.seq, seq) && !broken) continue
        b.counted = sum
        return
      }
    },
    writes,
  ],
  'a reader inside of its own writer': [
    broken => {
      write_seqlock(b.seq)
      if (broken) read_seqbegin(b.seq)
      write_sequnlock(b.seq)
    },
    nothing,
  ],
  'written without the count': [
    () => {
      let seq: number
      let sum = 0
      do {
        seq = read_seqbegin(b.seq)
        sum = b.low + b.high
      } while (read_seqretry(b.seq, seq))
      b.counted = sum
    },
    broken => {
      if (!broken) return writes(false)
      b.low = 5
      b.high = 5
    },
  ],
  'an object is lost': [
    broken => {
      const t = kmem_cache_alloc(things)!
      if (!broken) kmem_cache_free(things, t)
    },
    nothing,
  ],
  'an interrupt between a look and a write': [
    broken => {
      if (!broken) local_irq_disable()
      const n = RAM.i32[SPARE]!
      RAM.i32[SPARE] = n + 1
      if (!broken) local_irq_enable()
    },
    () => raise_interrupt(0),
  ],
} satisfies Record<string, readonly [Actor, Actor]>
const REFCNT = THING.offset('refcnt')
const SPARE = (b.addr + BOX.offset('spare')) >> 2

function writes(_: boolean): void {
  write_seqlock(b.seq)
  b.low++
  b.high++
  write_sequnlock(b.seq)
}

export const NAMES = Object.keys(CASES) as (keyof typeof CASES)[]

export function setup(args: Args): Args {
  machine_init(2, { slab_poison: 1 })
  tasklets_init()
  rcu_init(2)
  prove_stall_after(5)
  spin_lock_init(b.lock)
  seqlock_init(b.seq)
  b.low = 0
  b.high = 0
  b.counted = 0
  RAM.i32[SPARE] = 0
  open_softirq(
    TIMER_SOFTIRQ,
    symbol('test_softirq', () => {
      if (b.low !== 0) local_bh_disable()
    }),
  )
  if (args.name !== 'an object is lost') {
    const t = kmem_cache_alloc(things)!
    t.value = 1
    store(t.addr + REFCNT, 1)
    b.thing = t
  }
  return args
}

export function prepare(_: Args, me: { index: number }): void {
  cpu_init(me, () => {
    RAM.i32[SPARE]++
    b.counted++
  })
}
export const describe = describe_addr
export const actors = {
  'CPU 0': ({ name, broken }: Args) => CASES[name][0](broken),
  'CPU 1': ({ name, broken }: Args) => CASES[name][1](broken),
}

export function invariant({ name }: Args): void {
  if (name === 'an object is lost' && objects_out(things as never).length > 0)
    throw Object.assign(new Error('1 of thing'), { detector: 'leak' })
  if (name === 'an interrupt between a look and a write' && RAM.i32[SPARE] !== 1 + b.counted)
    throw new Error(`counted ${RAM.i32[SPARE]} of ${1 + b.counted}`)
}
