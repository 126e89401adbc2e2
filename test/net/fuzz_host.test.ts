/** A host and router under frames from a seed: nothing is lost from the books, nothing leaks, its service answers all the while. */
import '../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { FRAG_LIMIT, fuzz } from '../helpers/fuzzRun.js'

test('30,000 frames (seed 5): pieces, ICMP of every type, ARP, options, all of it mutated', () => {
  const r = fuzz(30_000, 5)
  expect(r).toMatchObject({ conserved: true, leaks: [] })
  expect(r.markers.echoed).toBe(r.markers.sent)
  expect(r.fragments).toBeLessThanOrEqual(FRAG_LIMIT)
  expect(r.fragments).toBeGreaterThan(200_000) // it did come to its limit
  expect(Object.keys(r.fates.drops).length).toBeGreaterThan(16)
})
