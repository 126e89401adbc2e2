import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { CPU_STAT, cpu_area, local_irq_disable, NICE, USER } from '../../../src/arch/cpu.js'
import { KernelPanic, send_vector, VEC_TIMER } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { post_mortem } from '../../../src/init/audit.js'
import { prepare_hooks } from '../../../src/irq/hotplug.js'
import { irq_stats } from '../../../src/irq/interrupt.js'
import {
  NOTIFIER,
  NOTIFIER_HEAD,
  NOTIFY_DONE,
  NOTIFY_STOP,
  notifier_call_chain,
  notifier_chain_register,
  notifier_chain_unregister,
  notifier_head_init,
} from '../../../src/irq/notifier.js'
import { init_timers, jiffies, msleep, timer_base } from '../../../src/irq/timer.js'
import {
  cancel_delayed_work,
  create_workqueue,
  destroy_workqueue,
  flush_workqueue,
  INIT_WORK,
  queue_work,
  schedule_delayed_work,
  schedule_work,
  WORK,
} from '../../../src/irq/workqueue.js'
import { ENOENT } from '../../../src/lib/errno.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { caches, kmem_alloc_addr, kmem_free_addr, slabinfo } from '../../../src/mm/slab.js'
import { synchronize_kernel } from '../../../src/rcu/rcupdate.js'
import {
  COMPLETION,
  complete,
  complete_all,
  init_completion,
  wait_for_completion,
} from '../../../src/sched/completion.js'
import {
  cond_resched,
  kernel_thread,
  schedule,
  set_current_state,
  task_timeslice,
  wake_up_process,
} from '../../../src/sched/sched.js'
import { down, down_trylock, SEMAPHORE, sema_init, up } from '../../../src/sched/semaphore.js'
import { TASK_RUNNING, TASK_UNINTERRUPTIBLE } from '../../../src/sched/task.js'
import {
  begin_wait,
  finish_wait,
  init_waitqueue_head,
  prepare_to_wait,
  WAIT_QUEUE_HEAD,
  WQ_FLAG_EXCLUSIVE,
  wait_event,
  wake_up,
  wake_up_all,
} from '../../../src/sched/wait.js'
import { SPINLOCK, spin_lock, spin_lock_init } from '../../../src/sync/spinlock.js'
import { clock } from '../../helpers/clock.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [] })
const log: string[] = []
const blocks: number[] = []
const place = (size: number): number => {
  blocks.push(kmalloc(size))
  return blocks.at(-1)!
}
let names = 0
/** Run a program as a kernel thread. */
function thread(program: (arg: number) => Generator<void, void, void>, nice = 0): void {
  const sym = symbol(`test_thread_${names++}`, function* (arg: number): Generator<void, number, void> {
    yield* program(arg)
    return 0
  })
  kernel_thread(`t${names}`, sym, names, { nice })
}

beforeEach(() => {
  log.length = 0
})

describe('tasks', () => {
  test('the most urgent first, equals in their order', () => {
    for (const [name, nice] of [
      ['c', 5],
      ['a', -5],
      ['b', 0],
      ['d', 5],
    ] as const)
      thread(function* () {
        log.push(name)
        yield* schedule()
        log.push(`${name}2`)
      }, nice)
    s.pass(1)
    expect(log).toEqual(['a', 'a2', 'b', 'b2', 'c', 'd', 'c2', 'd2'])
  })
  test('share the CPU by slices when they compute', () => {
    const turns: string[] = []
    for (const name of ['x', 'y'])
      thread(function* () {
        const until = jiffies() + 400
        while (jiffies() - until < 0) {
          if (turns.at(-1) !== name) turns.push(name)
          yield* msleep(0)
          yield* cond_resched()
        }
      })
    s.pass(900)
    expect(turns.length).toBeGreaterThanOrEqual(4)
    expect(new Set(turns)).toEqual(new Set(['x', 'y']))
  })
  test('a loop that polls lets interrupts in', () => {
    const before = irq_stats.cpu(0).timer
    send_vector(0, VEC_TIMER)
    expect(cond_resched().next().done).toBe(true)
    expect(irq_stats.cpu(0).timer).toBe(before + 1)
  })
  test.each(['timer_box', 'wait_queue_t', 'rcu_synchronize'])('sleep as long as asked when there is no %s', name => {
    const cache = caches.find(c => c.name === name)!
    const all: number[] = []
    for (let addr = kmem_alloc_addr(cache); addr !== 0; addr = kmem_alloc_addr(cache)) all.push(addr)
    const x = COMPLETION.make(place(COMPLETION.size))
    init_completion(x)
    thread(function* () {
      const from = jiffies()
      yield* msleep(10)
      log.push(`slept ${jiffies() - from >= 10}`)
      complete(x)
    })
    thread(function* () {
      yield* wait_for_completion(x)
      log.push('waited')
    })
    thread(function* () {
      yield* synchronize_kernel()
      log.push('synchronized')
    })
    for (let k = 0; k < 60; k++) s.pass(0.5, 1)
    for (const addr of all) kmem_free_addr(cache, addr)
    s.pass(60)
    expect(log.sort()).toEqual(['slept true', 'synchronized', 'waited'])
  })
  test.each([
    [-20, 800],
    [-1, 420],
    [0, 100],
    [10, 50],
    [19, 5],
  ])('a slice at nice %i is %i ms', (nice, ms) => {
    const p = kernel_thread(
      'slice',
      symbol(`slice${nice}`, function* () {
        return 0
      }),
      0,
      { nice, asleep: true },
    )!
    expect(task_timeslice(p)).toBe(ms)
    wake_up_process(p)
    s.pass(1)
  })
  test.each([
    ['user', 0, USER],
    ['niced', 5, NICE],
    ['urgent', -5, USER],
  ])('the time of a %s program is charged to its column', (name, nice, column) => {
    const spent = (): number => RAM.f64[((cpu_area(0) + CPU_STAT) >> 3) + column]!
    const before = spent()
    const program = symbol(`test_${name}`, function* () {
      clock.ns += 3e6
      yield* schedule()
      return 0
    })
    kernel_thread(name, program, 0, { nice, user: true })
    s.pass(1)
    expect(spent() - before).toBeGreaterThanOrEqual(3e6)
  })
  test('msleep sleeps at least that long', () => {
    let slept = 0
    thread(function* () {
      const from = jiffies()
      yield* msleep(25)
      slept = jiffies() - from
    })
    s.pass(60)
    expect(slept).toBeGreaterThanOrEqual(25)
    expect(slept).toBeLessThanOrEqual(28)
  })
})

describe('waiting', () => {
  test('a completion counts, complete_all lets everybody pass', () => {
    const done = COMPLETION.make(place(COMPLETION.size))
    init_completion(done)
    complete(done)
    for (const name of ['a', 'b', 'c'])
      thread(function* () {
        yield* wait_for_completion(done)
        log.push(name)
      })
    s.pass(1)
    expect(log).toEqual(['a'])
    complete_all(done)
    s.pass(1)
    expect(log).toEqual(['a', 'b', 'c'])
  })
  test('a semaphore admits as many as it counts', () => {
    const sem = SEMAPHORE.make(place(SEMAPHORE.size))
    sema_init(sem, 2)
    for (const name of ['a', 'b', 'c'])
      thread(function* () {
        yield* down(sem)
        log.push(`${name} in`)
        yield* msleep(5)
        log.push(`${name} out`)
        up(sem)
      })
    s.pass(30)
    expect(log).toEqual(
      ['a in', 'b in', 'a out', 'c in', 'b out', 'c out'].sort((x, y) => log.indexOf(x) - log.indexOf(y)),
    )
    expect(log.slice(0, 2)).toEqual(['a in', 'b in'])
    expect(log.indexOf('c in')).toBeGreaterThan(log.indexOf('a out'))
    expect([down_trylock(sem), down_trylock(sem), down_trylock(sem)]).toEqual([0, 0, 1])
  })
  test('wake_up wakes all sharers and one exclusive waiter', () => {
    const q = WAIT_QUEUE_HEAD.make(place(WAIT_QUEUE_HEAD.size))
    init_waitqueue_head(q)
    let open = false
    for (const [name, flags] of [
      ['shared1', 0],
      ['exclusive1', WQ_FLAG_EXCLUSIVE],
      ['shared2', 0],
      ['exclusive2', WQ_FLAG_EXCLUSIVE],
    ] as const)
      thread(function* () {
        yield* wait_event(q, () => open, flags)
        log.push(name)
      })
    s.pass(1)
    open = true
    wake_up(q)
    s.pass(1)
    expect(log.filter(l => l.startsWith('shared'))).toHaveLength(2)
    expect(log.filter(l => l.startsWith('exclusive'))).toHaveLength(1)
    wake_up_all(q)
    s.pass(1)
    expect(log).toHaveLength(4)
  })
  test('an exclusive waiter that has what it wants hands a wake-up on', () => {
    const q = WAIT_QUEUE_HEAD.make(place(WAIT_QUEUE_HEAD.size))
    init_waitqueue_head(q)
    let open = false
    thread(function* () {
      const wait = begin_wait(WQ_FLAG_EXCLUSIVE)!
      prepare_to_wait(q, wait, TASK_UNINTERRUPTIBLE)
      set_current_state(TASK_RUNNING)
      yield* schedule() // the other one queues behind it
      set_current_state(TASK_UNINTERRUPTIBLE)
      open = true
      wake_up(q) // as from another CPU, just before it leaves the queue by itself
      finish_wait(q, wait)
    })
    thread(function* () {
      yield* wait_event(q, () => open, WQ_FLAG_EXCLUSIVE)
      log.push('woken')
    })
    s.pass(1)
    expect(log).toEqual(['woken'])
  })
  test('a wake-up of a task that does not sleep changes nothing', () => {
    const t = kernel_thread(
      'runner',
      symbol('test_runner', function* () {
        return 0
      }),
      0,
    )!
    expect(wake_up_process(t)).toBe(false)
    s.pass(1)
  })
})

describe('work queues', () => {
  test('run what was queued once, may sleep, and flush waits for it', () => {
    const wq = create_workqueue('testq')!
    const work = WORK.make(place(WORK.size))
    INIT_WORK(
      work,
      symbol('test_work', function* (data: number) {
        log.push(`begin ${data}`)
        yield* msleep(5)
        log.push(`end ${data}`)
      }),
      7,
    )
    expect([queue_work(wq, work), queue_work(wq, work)]).toEqual([true, false])
    thread(function* () {
      yield* flush_workqueue(wq)
      log.push('flushed')
    })
    s.pass(30)
    expect(log).toEqual(['begin 7', 'end 7', 'flushed'])
    expect(schedule_work(work)).toBe(true)
    s.pass(30)
    expect(log.slice(3)).toEqual(['begin 7', 'end 7'])
  })
  const used = (name: string): number => slabinfo().find(c => c.name === name)!.used
  const noted = symbol('test_noted', function* (data: number) {
    log.push(`work ${data}`)
  })
  function make(data: number): ReturnType<typeof WORK.make> {
    const work = WORK.make(place(WORK.size))
    INIT_WORK(work, noted, data)
    return work
  }
  test('delayed work comes at its time, once, or not at all', () => {
    const work = make(1)
    expect([schedule_delayed_work(work, 20), schedule_delayed_work(work, 1), schedule_work(work)]).toEqual([
      true,
      false,
      false,
    ])
    s.pass(15)
    expect(log).toEqual([])
    s.pass(10)
    expect(log).toEqual(['work 1'])
    expect(cancel_delayed_work(work)).toBe(false)
    expect(schedule_delayed_work(work, 20)).toBe(true)
    s.pass(10)
    expect(cancel_delayed_work(work)).toBe(true)
    s.pass(20)
    expect(log).toEqual(['work 1'])
    expect(schedule_work(work)).toBe(true)
    s.pass(1)
    expect(log).toEqual(['work 1', 'work 1'])
  })
  test('a work that flushes its own queue does the rest of it', () => {
    const wq = create_workqueue('own')!
    const flusher = WORK.make(place(WORK.size))
    const flush = symbol('test_flush_own', function* () {
      yield* flush_workqueue(wq)
      log.push('flushed')
    })
    INIT_WORK(flusher, flush, 0)
    queue_work(wq, flusher)
    queue_work(wq, make(2))
    s.pass(5)
    expect(log).toEqual(['work 2', 'flushed'])
    thread(() => destroy_workqueue(wq))
    s.pass(5)
  })
  test('one that is destroyed does its work first, and leaves nothing', () => {
    const before = ['workqueue_struct', 'cpu_workqueue', 'task_struct'].map(used)
    const wq = create_workqueue('short')!
    queue_work(wq, make(3))
    thread(function* () {
      yield* destroy_workqueue(wq)
      log.push('destroyed')
    })
    s.pass(5)
    expect(log).toEqual(['work 3', 'destroyed'])
    expect(['workqueue_struct', 'cpu_workqueue', 'task_struct'].map(used)).toEqual(before)
  })
  test.each(['task_struct', 'cpu_workqueue', 'workqueue_struct'])(
    'is not to be had without a %s, and nothing is lost',
    name => {
      const cache = caches.find(c => c.name === name)!
      const all: number[] = []
      for (let addr = kmem_alloc_addr(cache); addr !== 0; addr = kmem_alloc_addr(cache)) all.push(addr)
      expect(create_workqueue('none')).toBeNull()
      for (const addr of all) kmem_free_addr(cache, addr)
      const before = ['workqueue_struct', 'cpu_workqueue', 'task_struct'].map(used)
      thread(() => destroy_workqueue(create_workqueue('one')!))
      s.pass(5)
      expect(['workqueue_struct', 'cpu_workqueue', 'task_struct'].map(used)).toEqual(before)
    },
  )
})

test('the wheel of a CPU that is started again goes on from now', () => {
  init_timers(2)
  const base = timer_base(1)
  base.timer_jiffies = jiffies() - 100_000
  for (const hook of prepare_hooks) hook(1)
  expect(base.timer_jiffies).toBe(jiffies())
})

test('a notifier chain calls by priority until one says stop', () => {
  const chain = NOTIFIER_HEAD.make(place(NOTIFIER_HEAD.size))
  notifier_head_init(chain)
  const make = (name: string, priority: number, ret: number) => {
    const nb = NOTIFIER.make(place(NOTIFIER.size))
    nb.call = symbol(`test_notifier_${name}`, (_nb, event: number, data: number) => {
      log.push(`${name} ${event} ${data}`)
      return ret
    })
    nb.priority = priority
    notifier_chain_register(chain, nb)
    return nb
  }
  make('low', 0, NOTIFY_DONE)
  const stop = make('stop', 5, NOTIFY_STOP)
  make('high', 9, NOTIFY_DONE)
  expect(notifier_call_chain(chain, 1, 42)).toBe(NOTIFY_STOP)
  expect(log).toEqual(['high 1 42', 'stop 1 42'])
  expect(notifier_chain_unregister(chain, stop)).toBe(0)
  expect(notifier_chain_unregister(chain, stop)).toBe(-ENOENT)
  notifier_call_chain(chain, 2, 43)
  expect(log.slice(2)).toEqual(['high 2 43', 'low 2 43'])
})

test('nothing leaks', () => {
  for (const addr of blocks) kfree(addr)
  expect(s.solo.audit()).toEqual([])
})

describe('what would be a bug stops the machine', () => {
  beforeEach(post_mortem)
  test('sleeping with a lock held', () => {
    const lock = SPINLOCK.make(0x200000)
    spin_lock_init(lock)
    spin_lock(lock)
    expect(() => schedule().next()).toThrow(KernelPanic)
  })
  test('sleeping with interrupts off', () => {
    local_irq_disable()
    expect(() => schedule().next()).toThrow(KernelPanic)
  })
})
