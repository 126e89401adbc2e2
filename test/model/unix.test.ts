import { expect, test } from 'vitest'
import { explore } from '../../src/explore/index.js'

const options = { schedules: 40, kernel: {}, maxSteps: 50_000, hangSeconds: 60, throws: false }

test('Unix datagrams to a full queue under control: the sender is woken, and hears that the receiver went', async () => {
  const result = await explore(new URL('./kernel/unix.js', import.meta.url), { ...options, args: { messages: 3 } })
  expect(result).toMatchObject({ findings: [], schedules: 40, cut: 0, outcomes: { '3 taken': 40 } })
})

test('Unix connections under control: accepted, refused or reset, and nothing is lost with them', async () => {
  const result = await explore(new URL('./kernel/seqpacket.js', import.meta.url), { ...options, spinLooks: 8 })
  expect(result).toMatchObject({ findings: [], schedules: 40, cut: 0 })
  expect(Object.keys(result.outcomes).length).toBeGreaterThan(1)
})
