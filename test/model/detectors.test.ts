import { describe, expect, test } from 'vitest'
import type { KernelDetector } from '../../src/arch/bug.js'
import { explore } from '../../src/explore/index.js'

const url = new URL('./kernel/detectors.js', import.meta.url)
const look = (name: string, broken: boolean) =>
  explore(url, { throws: false, schedules: 300, all: true, kernel: {}, args: { name, broken } })

/** What must be caught, by whom, and what its report says. */
const CASES: readonly (readonly [string, KernelDetector | 'invariant' | 'data race', RegExp])[] = [
  ['dereference outside a reader', 'rcu', /outside of every reader/],
  ['freed without a grace period', 'rcu', /thing\[0\] is freed without a grace period, and .*CPU 0/],
  ['the wrong flavour', 'rcu', /wrong flavour: thing\[0\] is freed by call_rcu_bh/],
  ['queued to be freed, and still published', 'rcu', /still published/],
  ['a reader sleeps', 'rcu', /an RCU reader sleeps/],
  ['unlocked without a lock', 'rcu', /rcu_read_unlock without rcu_read_lock/],
  [
    'a grace period that does not end',
    'rcu',
    /grace period of rcu does not end: for 6 ticks CPU 0 has passed no quiescent/,
  ],
  ['sleep under a spinlock', 'sleep in atomic', /preempt_count 0x1/],
  ['sleep with interrupts off', 'sleep in atomic', /scheduling while atomic/],
  ['preemption left disabled', 'context imbalance', /ended with preempt_count 0x1 and interrupts on/],
  ['interrupts left off', 'context imbalance', /ended with preempt_count 0x0 and interrupts off/],
  ['a lock left held', 'context imbalance', /ends with box.lock held/],
  ['a softirq leaves bottom halves off', 'context imbalance', /softirq TIMER began with .* ended with/],
  ['used after it was freed', 'use after free', /thing\[\d\].value is used after it was freed/],
  ['used on another CPU after it was freed', 'use after free', /thing\[0\]/],
  ['freed twice', 'double free', /double free of thing/],
  ['a reference from zero', 'refcount', /thing\[\d\].refcnt goes up from 0/],
  ['one reference too many dropped', 'refcount', /thing\[\d\].refcnt goes down from 0/],
  ['used without read_seqretry', 'seqlock', /used without read_seqretry/],
  ['used although read_seqretry said no', 'seqlock', /although read_seqretry said that a writer came in between/],
  ['a reader inside of its own writer', 'seqlock', /read where this CPU writes it/],
  ['written without the count', 'data race', /box.(low|high)/],
  ['an object is lost', 'leak', /1 of thing/],
  ['an interrupt between a look and a write', 'invariant', /counted 1 of 2/],
]

/** What may be seen first as well: the reader comes when the object has gone. */
const ALSO: Record<string, KernelDetector> = { 'queued to be freed, and still published': 'use after free' }

describe.each(CASES)('%s', (name, detector, words) => {
  test('is caught, and named', async () => {
    const { findings } = await look(name, true)
    expect(findings.map(f => [f.detector, f.sentence])).toContainEqual([detector, expect.stringMatching(words)])
    expect([detector, ALSO[name]]).toContain(findings[0]!.detector)
  })
  test('done right is silent', async () => {
    const result = await look(name, false)
    expect(result).toMatchObject({ findings: [], schedules: 300, cut: 0 })
  })
})
