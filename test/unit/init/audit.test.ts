/** The audit sees what is left behind, and is silent when nothing is. */
import { expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { leftovers } from '../../../src/init/audit.js'
import { del_timer, init_timer, jiffies, mod_timer, TIMER, timers_pending } from '../../../src/irq/timer.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { rtnetlink_exit } from '../../../src/net/netlink/rtnetlink.js'
import { kernel_thread, run_next } from '../../../src/sched/sched.js'
import { begin_wait, init_waitqueue_head, WAIT_QUEUE_HEAD, wait_event } from '../../../src/sched/wait.js'
import { Solo } from '../../helpers/solo.js'

new Solo({ ports: [] })
rtnetlink_exit() // the kernel has a socket of its own, which the audit closes first
const fire = symbol('test_fire', () => {})

test('nothing, when nothing is left', () => {
  expect(leftovers(1)).toEqual([])
})
test('a timer that is pending in memory which was freed', () => {
  const before = timers_pending(0).length
  const timer = TIMER.make(kmalloc(TIMER.size))
  init_timer(timer, fire, 0)
  for (const delay of [3, 3000, 300_000, 30_000_000]) {
    mod_timer(timer, jiffies() + delay)
    expect(timers_pending(0)).toContain(timer.addr)
  }
  kfree(timer.addr)
  expect(leftovers(1)).toEqual([{ name: 'pending timer in freed size-64', used: 1, total: before + 1 }])
  del_timer(timer)
  expect(leftovers(1)).toEqual([])
})
test('an entry of a task that has ended, but not of one that waits', () => {
  const q = WAIT_QUEUE_HEAD.make(0x200000)
  init_waitqueue_head(q)
  const waits = symbol('test_waits', function* () {
    yield* wait_event(q, () => false)
    return 0
  })
  const forgets = symbol('test_forgets', function* () {
    begin_wait()
    return 0
  })
  kernel_thread('waits', waits, 0)
  while (run_next());
  expect(leftovers(1)).toEqual([])
  kernel_thread('forgets', forgets, 0)
  while (run_next());
  expect(leftovers(1)).toEqual([{ name: 'wait_queue_t of an ended task', used: 1, total: 2 }])
})
