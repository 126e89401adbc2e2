import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LIST } from '../../../src/abi/list.js'
import { symbol } from '../../../src/abi/symbol.js'
import {
  __run_timers,
  del_timer,
  init_timer,
  mod_timer,
  TIMER,
  TVN_SIZE,
  TVR_SIZE,
  timer_base,
  timer_pending,
} from '../../../src/irq/timer.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { Solo } from '../../helpers/solo.js'

const solo = new Solo({ ports: [] })
const COUNT = 64
const fired: number[] = []
/** Delays that a timer's handler arms it with again, next last. */
const again: number[][] = Array.from({ length: COUNT }, () => [])
const fire = symbol('test_fire', (data: number) => {
  fired.push(data)
  if (fired.length > 4 * COUNT) throw new Error(`timer ${data} fires for ever in tick ${timer_base(0).timer_jiffies}`)
  const delay = again[data]!.pop()
  if (delay !== undefined) mod_timer(timers[data]!, (timer_base(0).timer_jiffies - 1 + delay) | 0)
})
const timers = Array.from({ length: COUNT }, () => TIMER.make(kmalloc(TIMER.size)))

// Those of the kernel have no place in a wheel whose time jumps about.
for (const [first, slots] of [
  [timer_base(0).tv1, TVR_SIZE],
  [timer_base(0).tvn, 4 * TVN_SIZE],
] as const)
  for (let slot = first; slot < first + slots * 8; slot += 8)
    while (LIST.ref(slot).next !== slot) del_timer(TIMER.container_of('entry', LIST.ref(slot).next))

type Step =
  | { kind: 'arm'; timer: number; delay: number; again: number[] }
  | { kind: 'delete'; timer: number }
  | { kind: 'run'; ticks: number }

/** Delays for each of the five wheels. */
const delay = fc.oneof(fc.nat(300), fc.nat(20_000), fc.nat(1_100_000), fc.integer({ min: -50, max: 5 }))
/** Also a whole turn of the first wheel ahead, and of the second one. */
const rearm = fc.oneof(fc.constantFrom(255, 256, 257, 16_384), fc.integer({ min: -5, max: 600 }))
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('arm' as const),
      timer: fc.nat(COUNT - 1),
      delay,
      again: fc.array(rearm, { maxLength: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('delete' as const), timer: fc.nat(COUNT - 1) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('run' as const),
      ticks: fc.oneof(fc.nat(10), fc.nat(3000), fc.nat(70_000)),
    }),
  },
)

test('the wheel fires what a sorted list fires, at its tick', () => {
  fc.assert(
    fc.property(fc.integer(), fc.array(step, { maxLength: 60 }), (start, steps) => {
      const base = timer_base(0)
      for (const t of timers) del_timer(t)
      base.timer_jiffies = start // also just before the wrap of jiffies
      timers.forEach((t, k) => {
        init_timer(t, fire, k)
        again[k] = []
      })
      let now = start
      let order = 0
      let list: { timer: number; at: number; order: number }[] = []
      for (const s of steps) {
        if (s.kind === 'arm') {
          again[s.timer] = [...s.again]
          const was = list.some(e => e.timer === s.timer)
          list = list.filter(e => e.timer !== s.timer)
          list.push({ timer: s.timer, at: Math.max(0, s.delay) + (now - start), order: order++ })
          expect(mod_timer(timers[s.timer]!, (now + s.delay) | 0)).toBe(was)
        } else if (s.kind === 'delete') {
          const was = list.some(e => e.timer === s.timer)
          list = list.filter(e => e.timer !== s.timer)
          expect(del_timer(timers[s.timer]!)).toBe(was)
        } else {
          for (let t = 0; t < s.ticks; t++) {
            fired.length = 0
            const due = list.filter(e => e.at <= now - start).map(e => e.timer)
            list = list.filter(e => e.at > now - start)
            for (const timer of due) {
              const next = again[timer]!.at(-1)
              if (next !== undefined) list.push({ timer, at: now - start + Math.max(1, next), order: order++ })
            }
            __run_timers(base, now | 0)
            expect([...fired].sort()).toEqual(due.sort())
            now++
            if (list.length === 0 && t > 300) break
          }
        }
      }
      for (const e of list) expect(timer_pending(timers[e.timer]!)).toBe(true)
    }),
    { numRuns: 60 },
  )
})

test('a handler may arm its own timer for now: it fires at the next tick, not for ever', () => {
  const base = timer_base(0)
  let times = 0
  const again_sym = symbol('test_again', () => {
    times++
    mod_timer(timers[0]!, base.timer_jiffies)
  })
  init_timer(timers[0]!, again_sym, 0)
  const now = base.timer_jiffies
  mod_timer(timers[0]!, now)
  __run_timers(base, now)
  expect(times).toBe(1)
  __run_timers(base, now + 1)
  expect(times).toBe(2)
  del_timer(timers[0]!)
})

test('nothing leaks', () => {
  for (const t of timers) {
    del_timer(t)
    kfree(t.addr)
  }
  expect(solo.audit()).toEqual([])
})
