/** A gateway that filters, tracks and translates, under frames from a seed: all is in the books, nothing leaks, its service answers. */
import '../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { ct } from '../../src/net/ipv4/netfilter/ip_conntrack.js'
import { FRAG_LIMIT, fuzz, GATEWAY } from '../helpers/fuzzRun.js'
import { saved } from '../helpers/iptables.js'

test('20,000 frames (seed 8) through tables nat, filter and mangle', () => {
  const counted: string[] = []
  const r = fuzz(20_000, 8, GATEWAY, () => counted.push(saved('nat'), saved('filter')))
  expect(r).toMatchObject({ conserved: true, leaks: [] })
  expect(r.markers.echoed).toBe(r.markers.sent)
  expect(r.fragments).toBeLessThanOrEqual(FRAG_LIMIT)
  // Each way was gone.
  expect(counted.join('\n').match(/^\[0:0\].*$/gm)).toBe(null)
  expect(ct.count).toBe(0)
})
