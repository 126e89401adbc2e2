import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { store } from '../../../src/arch/atomic.js'
import { local_irq_restore, local_irq_save, tick } from '../../../src/arch/cpu.js'
import {
  CAUSE_RX,
  irq_line,
  irq_vector,
  LINE_RX_ACK,
  LINE_RX_HEAD,
  LINE_WIRED,
  line_enable,
  line_update,
} from '../../../src/arch/irqchip.js'
import { send_vector, VEC_TIMER } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { proc_read } from '../../../src/fs/proc.js'
import { free_irq, irq_disabled, request_irq, SA_INTERRUPT, SA_SHIRQ } from '../../../src/irq/interrupt.js'
import { open_softirq, raise_softirq, SCSI_SOFTIRQ } from '../../../src/irq/softirq.js'
import { EBUSY, EINVAL } from '../../../src/lib/errno.js'
import { in_interrupt, in_irq } from '../../../src/sync/preempt.js'
import { Solo } from '../../helpers/solo.js'

const solo = new Solo({ ports: [] })
const HIGH = 1 // vector 5
const LOW = 9 // vector 13
const log: string[] = []
const inside: Record<number, () => void> = {}

/** The device says that it has something; the handler takes it. */
function assert_line(irq: number): void {
  store(irq_line(irq) + LINE_RX_HEAD, RAM.i32[(irq_line(irq) + LINE_RX_HEAD) >> 2]! + 1)
  line_update(irq)
}
const handler = symbol('test_handler', (irq: number, dev_id: number) => {
  log.push(`irq ${irq}${dev_id > 1 ? `/${dev_id}` : ''}`)
  RAM.i32[(irq_line(irq) + LINE_RX_ACK) >> 2] = RAM.i32[(irq_line(irq) + LINE_RX_HEAD) >> 2]!
  inside[irq]?.()
  log.push(`end ${irq}`)
  return 1
})
open_softirq(
  SCSI_SOFTIRQ,
  symbol('test_softirq', () => {
    log.push(`softirq${in_irq() ? ' in irq' : ''}`)
  }),
)

beforeEach(() => {
  log.length = 0
  for (const irq of [HIGH, LOW]) {
    delete inside[irq]
    store(irq_line(irq) + LINE_WIRED, 1)
    line_enable(irq, CAUSE_RX)
  }
})

describe('a handler', () => {
  test('runs at once when interrupts are on, later when they are off', () => {
    expect(request_irq(HIGH, handler, 0, 1)).toBe(0)
    expect(request_irq(LOW, handler, 0, 1)).toBe(0)
    const flags = local_irq_save()
    assert_line(LOW)
    assert_line(HIGH)
    tick(1)
    expect(log).toEqual([])
    local_irq_restore(flags)
    expect(log).toEqual(['irq 1', 'end 1', 'irq 9', 'end 9']) // the more urgent one first
    expect(in_interrupt()).toBe(false)
  })
  test('is interrupted by a more urgent one', () => {
    inside[LOW] = () => {
      assert_line(HIGH)
      tick(1)
    }
    assert_line(LOW)
    tick(1)
    expect(log).toEqual(['irq 9', 'irq 1', 'end 1', 'end 9'])
  })
  test('but not by a less urgent one', () => {
    inside[HIGH] = () => {
      assert_line(LOW)
      tick(1)
    }
    assert_line(HIGH)
    tick(1)
    expect(log).toEqual(['irq 1', 'end 1', 'irq 9', 'end 9'])
  })
  test('nor by anything when it asked for that', () => {
    free_irq(LOW, 1)
    expect(request_irq(LOW, handler, SA_INTERRUPT, 1)).toBe(0)
    inside[LOW] = () => {
      assert_line(HIGH)
      send_vector(0, VEC_TIMER)
      tick(1)
    }
    assert_line(LOW)
    tick(1)
    expect(log).toEqual(['irq 9', 'end 9', 'irq 1', 'end 1'])
    free_irq(LOW, 1)
    expect(request_irq(LOW, handler, 0, 1)).toBe(0)
  })
  test('leaves softirqs to the end of the outermost interrupt, where everything may interrupt', () => {
    inside[HIGH] = () => raise_softirq(SCSI_SOFTIRQ)
    inside[LOW] = () => {
      assert_line(HIGH)
      tick(1)
      log.push('back')
    }
    assert_line(LOW)
    tick(1)
    expect(log).toEqual(['irq 9', 'irq 1', 'end 1', 'back', 'end 9', 'softirq'])
  })
  test('comes again while the level is up', () => {
    let left = 3
    inside[HIGH] = () => {
      if (--left > 0) assert_line(HIGH)
    }
    assert_line(HIGH)
    tick(1)
    expect(log.filter(l => l === 'irq 1')).toHaveLength(3)
  })
})

describe('a line', () => {
  test('that is masked does not interrupt; unmasking looks at the level', () => {
    line_enable(HIGH, 0)
    assert_line(HIGH)
    tick(1)
    expect(log).toEqual([])
    line_enable(HIGH, CAUSE_RX)
    tick(1)
    expect(log).toEqual(['irq 1', 'end 1'])
  })
  test('is shared only by handlers that all say so', () => {
    expect(request_irq(HIGH, handler, SA_SHIRQ, 2)).toBe(-EBUSY)
    free_irq(HIGH, 1)
    expect(request_irq(HIGH, handler, SA_SHIRQ, 2)).toBe(0)
    expect(request_irq(HIGH, handler, SA_SHIRQ, 3)).toBe(0)
    expect(request_irq(HIGH, handler, 0, 4)).toBe(-EBUSY)
    assert_line(HIGH)
    tick(1)
    expect(log).toEqual(['irq 1/3', 'end 1', 'irq 1/2', 'end 1'])
  })
  test.each([
    ['of a number that does not exist', -1, handler, 0, 1],
    ['beyond the last', 64, handler, 0, 1],
    ['without a handler', 3, 0, 0, 1],
    ['shared without a way to tell whose', 3, handler, SA_SHIRQ, 0],
  ])('%s is refused', (_what, irq, h, flags, dev_id) => {
    expect(request_irq(irq, h as typeof handler, flags, dev_id)).toBe(-EINVAL)
  })
})

describe('a line that interrupts for nothing', () => {
  const IRQ = 2
  let calls = 0
  let mine = 0
  const stray = symbol('test_stray', () => {
    calls++
    return calls % 1000 < mine ? 1 : 0
  })
  function interrupt(times: number): void {
    for (let k = 0; k < times; k++) {
      send_vector(0, irq_vector(IRQ))
      tick(1)
    }
  }
  beforeEach(() => {
    store(irq_line(IRQ) + LINE_WIRED, 1)
    calls = 0
    expect(request_irq(IRQ, stray, 0, 1)).toBe(0)
  })
  test("is disabled after 99,900 of 100,000 that were nobody's, until somebody asks for it anew", () => {
    mine = 0
    interrupt(99_999)
    expect(irq_disabled(IRQ)).toBe(false)
    interrupt(11)
    expect(irq_disabled(IRQ)).toBe(true)
    expect(calls).toBe(100_000)
    expect(proc_read('/proc/interrupts')).toMatch(/^ +2: .*disabled: nobody cared$/m)
    free_irq(IRQ, 1)
    expect(request_irq(IRQ, stray, 0, 1)).toBe(0)
    interrupt(1)
    expect(calls).toBe(100_001)
    free_irq(IRQ, 1)
  })
  test('but not when two in a thousand have an owner', () => {
    mine = 2
    interrupt(200_000)
    expect([irq_disabled(IRQ), calls]).toEqual([false, 200_000])
    free_irq(IRQ, 1)
  })
})

test('nothing leaks', () => {
  free_irq(HIGH, 2)
  free_irq(HIGH, 3)
  free_irq(LOW, 1)
  expect(solo.audit()).toEqual([])
})
