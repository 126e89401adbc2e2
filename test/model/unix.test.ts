import { expect, test } from 'vitest'
import { explore } from '../../src/explore/index.js'

test('Unix datagrams to a full queue under control: the sender is woken, and hears that the receiver went', async () => {
  const options = { schedules: 40, kernel: { megabytes: 64 }, args: { messages: 3 }, maxSteps: 50_000, hangSeconds: 60 }
  const result = await explore(new URL('./kernel/unix.js', import.meta.url), { throws: false, ...options })
  expect(result.findings).toEqual([])
  // Where the sender turns for long before there is anybody to send to, the schedule is cut.
  expect(Object.keys(result.outcomes)).toEqual(['3 taken'])
  expect(result.outcomes['3 taken']).toBeGreaterThanOrEqual(10)
})
