import { expect, test } from 'vitest'
import { explore } from '../../src/explore/index.js'

test('Unix datagrams to a full queue under control: the sender is woken, and hears that the receiver went', async () => {
  const options = { schedules: 40, kernel: { megabytes: 64 }, args: { messages: 3 }, maxSteps: 50_000, hangSeconds: 60 }
  const result = await explore(new URL('./kernel/unix.js', import.meta.url), { throws: false, ...options })
  expect(result).toMatchObject({ findings: [], schedules: 40, cut: 0, outcomes: { '3 taken': 40 } })
})
