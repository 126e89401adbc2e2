import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { local_irq_restore, local_irq_save, local_softirq_pending } from '../../../src/arch/cpu.js'
import {
  do_softirq,
  HI_SOFTIRQ,
  MAX_SOFTIRQ_RESTART,
  NET_TX_SOFTIRQ,
  open_softirq,
  raise_softirq,
  SCSI_SOFTIRQ,
} from '../../../src/irq/softirq.js'
import {
  TASKLET,
  tasklet_disable,
  tasklet_enable,
  tasklet_hi_schedule,
  tasklet_init,
  tasklet_schedule,
} from '../../../src/irq/tasklet.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { run_next } from '../../../src/sched/sched.js'
import { local_bh_disable, local_bh_enable } from '../../../src/sync/bh.js'
import { in_interrupt, in_softirq } from '../../../src/sync/preempt.js'
import { Solo } from '../../helpers/solo.js'

const solo = new Solo({ ports: [] })
const log: string[] = []
let again = 0
for (const [nr, name] of [
  [NET_TX_SOFTIRQ, 'net_tx'],
  [SCSI_SOFTIRQ, 'scsi'],
] as const)
  open_softirq(
    nr,
    symbol(`test_${name}`, () => {
      log.push(in_softirq() ? name : `${name} outside`)
      if (again > 0) {
        again--
        raise_softirq(nr)
      }
    }),
  )

/** Every process of the CPU gets its turn until all sleep. */
function settle(): void {
  while (run_next());
}

beforeEach(() => {
  settle()
  log.length = 0
  again = 0
})

describe('softirqs', () => {
  test('run in the order of their numbers, once each, and leave nothing pending', () => {
    local_bh_disable()
    raise_softirq(SCSI_SOFTIRQ)
    raise_softirq(NET_TX_SOFTIRQ)
    raise_softirq(SCSI_SOFTIRQ)
    expect(log).toEqual([])
    local_bh_enable()
    expect(log).toEqual(['net_tx', 'scsi'])
    expect(local_softirq_pending()).toBe(0)
    expect(in_interrupt()).toBe(false)
  })
  test('wait while bottom halves are off, at any depth', () => {
    local_bh_disable()
    local_bh_disable()
    raise_softirq(SCSI_SOFTIRQ)
    local_bh_enable()
    expect(log).toEqual([])
    local_bh_enable()
    expect(log).toEqual(['scsi'])
  })
  test('one that raises itself runs ten times, the rest is left to ksoftirqd', () => {
    again = 25
    const flags = local_irq_save()
    raise_softirq(SCSI_SOFTIRQ)
    local_irq_restore(flags)
    do_softirq()
    expect(log).toHaveLength(MAX_SOFTIRQ_RESTART)
    expect(local_softirq_pending()).toBe(1 << SCSI_SOFTIRQ)
    settle() // ksoftirqd goes on: ten, then the last six
    expect(log).toHaveLength(26)
    expect(local_softirq_pending()).toBe(0)
  })
})

describe('tasklets', () => {
  const t = TASKLET.make(kmalloc(TASKLET.size))
  const hi = TASKLET.make(kmalloc(TASKLET.size))
  const note = symbol('test_tasklet', (data: number) => {
    log.push(`tasklet ${data}`)
  })
  test('run once for any number of schedules, the high ones before all softirqs', () => {
    tasklet_init(t, note, 1)
    tasklet_init(hi, note, 2)
    local_bh_disable()
    tasklet_schedule(t)
    tasklet_schedule(t)
    raise_softirq(SCSI_SOFTIRQ)
    tasklet_hi_schedule(hi)
    local_bh_enable()
    expect(log).toEqual(['tasklet 2', 'scsi', 'tasklet 1'])
    expect(HI_SOFTIRQ).toBe(0)
  })
  test('a disabled one waits until it is enabled again', () => {
    tasklet_disable(t)
    tasklet_schedule(t)
    do_softirq()
    expect(log).toEqual([])
    tasklet_enable(t)
    do_softirq()
    settle()
    expect(log).toEqual(['tasklet 1'])
  })
  test('nothing leaks', () => {
    kfree(t.addr)
    kfree(hi.addr)
    expect(solo.audit()).toEqual([])
  })
})
