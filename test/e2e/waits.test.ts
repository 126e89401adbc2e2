/** In virtual time a machine that can never go on ends at once, and says who waits for what. */
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { describe, expect, test } from 'vitest'
import { MachinePanic } from '../../src/lab/errors.js'
import { Machine, type MachineConfig } from '../../src/lab/machine.js'
import { readProfile } from '../../src/lab/profile.js'
import type { LockKind } from '../../src/lab/types.js'
import { bare } from '../torture/harness.js'

// Not imported: the scenario is a module of the kernel.
const [CIRCLE_OF_2, CIRCLE_OF_3, ALONE, READS_AND_WRITES, READER_AND_WRITER, ALL_SLEEP, CROWD] = [1, 2, 3, 4, 5, 6, 7]

const profile = readProfile('modern')
const KINDS = ['tas', 'ticket', 'mcs'] as const

/** What a machine dies of. */
async function fate(cpus: number, lock: LockKind, how: number, part: Partial<MachineConfig> = {}): Promise<string> {
  const machine = new Machine({ ...bare(cpus, lock, 'waits'), profile, ...part })
  try {
    await machine.load()
    machine.ram.i32[machine.ram.address('test_waits', 'how') >> 2] = how
    await machine.powerOn()
    await machine.pass(part.hz === 0 ? Infinity : 10_000)
    throw new Error('it lives')
  } catch (error) {
    expect(error).toBeInstanceOf(MachinePanic)
    return (error as Error).message
  } finally {
    await machine.destroy()
  }
}

/** Lines of the report, by what they begin with. */
function line(report: string, of: string): string {
  return report.split('\n').find(l => l.startsWith(` ${of}`)) ?? ''
}

describe.each(KINDS)('%s', lock => {
  test('two CPUs in a circle', async () => {
    const report = await fate(2, lock, CIRCLE_OF_2)
    const [title] = report.split('\n')
    expect(title).toMatch(
      /^Kernel panic - BUG: deadlock: CPU (\d) waits for test_waits\.(a|b) held by CPU (\d), which waits for test_waits\.(a|b) held by CPU \1$/,
    )
    for (const [cpu, has, wants] of ['0ab', '1ba'].map(c => [...c]))
      expect(line(report, `CPU ${cpu}`)).toMatch(
        new RegExp(
          `^ CPU ${cpu} at \\d+\\.\\d{6} ms: waits for test_waits\\.${wants} \\(${lock} spinlock\\) held by CPU ${1 - Number(cpu)}; holds test_waits\\.${has}; in waiter${cpu} \\(\\d+\\)$`,
        ),
      )
    expect(line(report, 'board')).toMatch(/^ board at .* ms: due at .* ms$/)
    expect(line(report, 'host')).toMatch(/^ host at .* ms: due at .* ms$/)
    expect(report).toMatch(/\nEIP is at (tas|ticket|mcs)_slow\n/)
  })
  test('three in a circle, a fourth idle', async () => {
    const report = await fate(4, lock, CIRCLE_OF_3)
    expect(report.split('\n')[0]!.match(/held by CPU \d/g)).toHaveLength(3)
    expect(report.match(/waits for test_waits\.[abc] \(/g)).toHaveLength(3)
    expect(line(report, 'CPU 3')).toMatch(/: (idle, no interrupt pending, (no timer|\d+ timers?) on its wheel|runs)/)
  })
  test('two in a circle while others compute and are ticked at', async () => {
    const report = await fate(4, lock, CROWD, { userSpin: true })
    expect(report).toMatch(/^Kernel panic - BUG: deadlock: CPU \d waits for test_waits/)
    expect(report).toMatch(/\n CPU 2 at .*: (runs|computes until .*|idle.*)/)
  })
  test('one CPU alone', async () => {
    expect(await fate(1, lock, ALONE)).toMatch(
      /^Kernel panic - spinlock recursion: CPU 0 waits for test_waits\.a held by CPU 0 itself\n/,
    )
  })
  test('twice the same run dies the same death', async () => {
    const [first, again] = [await fate(3, lock, CIRCLE_OF_3), await fate(3, lock, CIRCLE_OF_3)]
    expect(again).toBe(first)
  })
})

test('who reads and then wants to write waits for itself', async () => {
  const report = await fate(1, 'tas', READS_AND_WRITES)
  expect(report).toMatch(/^Kernel panic - BUG: deadlock: CPU 0 waits for test_waits\.rw held by CPU 0\n/)
  expect(line(report, 'CPU 0')).toMatch(
    /waits for test_waits\.rw \(rwlock, to write\) held by CPU 0 for reading; holds test_waits\.rw\(r\)/,
  )
})

test('a circle of a spinlock and an rwlock', async () => {
  const report = await fate(2, 'ticket', READER_AND_WRITER)
  expect(report).toMatch(/^Kernel panic - BUG: deadlock: CPU \d waits for /)
  expect(line(report, 'CPU 0')).toMatch(/waits for test_waits\.a \(ticket spinlock\) held by CPU 1/)
  expect(line(report, 'CPU 1')).toMatch(/waits for test_waits\.rw \(rwlock, to write\) held by CPU 0 for reading/)
})

test.each([1, 2, 32])('%i CPUs are idle, no clock ticks, and nothing is due: which task sleeps where', async cpus => {
  const report = await fate(cpus, 'mcs', cpus === 1 ? 0 : ALL_SLEEP, { hz: 0 })
  expect(report).toMatch(/^Kernel panic - BUG: no CPU can go on: nobody has anything to do, and nothing is due\n/)
  for (let cpu = 0; cpu < cpus; cpu++)
    expect(line(report, `CPU ${cpu} `)).toMatch(/ms: idle, no interrupt pending, (no timer|\d+ timers?) on its wheel$/)
  expect(line(report, 'board')).toMatch(/: nothing is due$/)
  expect(line(report, 'host')).toMatch(/: nothing is due$/)
  if (cpus === 1) return
  expect(line(report, 'waiter0')).toMatch(/^ waiter0 \(\d+\) of CPU 0: sleeps on test_waits\.second\.wait$/)
  expect(line(report, 'waiter1')).toMatch(/^ waiter1 \(\d+\) of CPU 1: sleeps on test_waits\.first\.wait$/)
  expect(report).toMatch(/\nCall Trace:\n at /)
})

describe('the command line', () => {
  const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
  const preload = pathToFileURL(join(root, 'dist/test/helpers/preload.js')).href
  const data = (name: string): string => join(root, 'data', name)
  const verbs = {
    forward: ['forward', '--in', `eth0=${data('mix.pcap')}`, '--routes', data('example.routes')],
    livelock: ['livelock', '--rx', 'napi', '--rates', '10k'],
  }
  test.each([
    ['forward', CIRCLE_OF_2],
    ['livelock', CIRCLE_OF_2],
    ['forward', CIRCLE_OF_3],
  ] as const)('%s, %i: the report on standard error, exit code 1', (verb, how) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--import', preload, join(root, 'bin/softnet.mjs'), ...verbs[verb], '--cpus', '3', '--clock', 'virtual'],
      {
        encoding: 'utf8',
        env: { ...process.env, SOFTNET_TEST_SCENARIO: 'waits', SOFTNET_TEST_HOW: String(how) },
        timeout: 20_000,
      },
    )
    expect(stderr).toMatch(
      /^softnet: Kernel panic - BUG: deadlock: CPU \d waits for test_waits\.[abc] held by CPU \d, /,
    )
    expect(stderr).toMatch(/\nWho waits for what:\n CPU 0 at /)
    expect([status, stdout]).toEqual([1, ''])
  })
})
