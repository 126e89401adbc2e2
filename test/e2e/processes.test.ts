/** Programs with arguments on whole machines: the host gets their output and exit codes, with both clocks. */
import { expect, test } from 'vitest'
import type { ConsoleRecord } from '../../src/lab/consoleReader.js'
import { RunError } from '../../src/lab/errors.js'
import { Machine, type MachineConfig } from '../../src/lab/machine.js'
import { readProfile } from '../../src/lab/profile.js'

function config(part: Partial<MachineConfig>): MachineConfig {
  return {
    cpus: 2,
    rx: 'napi',
    lock: 'tas',
    hz: 1000,
    irqCostNs: 0,
    irqWork: 0,
    seed: 1,
    ports: [],
    routes: [],
    neighbours: [],
    userSpin: false,
    trace: false,
    loopback: true,
    ...part,
  }
}

const LATE = ['echo', 'and', 'last']
const processes = [
  { argv: ['udpechod', '7'], cpu: 1, daemon: true },
  { argv: LATE, cpu: 1, delayMs: 30 },
  { argv: ['echo', 'first'] },
  { argv: ['udpechod', 'x'] },
]

async function play(part: Partial<MachineConfig>) {
  const machine = new Machine(config({ processes, ...part }))
  try {
    await machine.powerOn()
    const records: ConsoleRecord[] = []
    const codes = await machine.processes(2000, r => records.push(r))
    const turns = machine.turns
    const atMs = machine.nowMs
    await machine.halt()
    expect(await machine.audit()).toEqual([])
    return { codes, said: records.map(r => [r.process, r.fd, r.text]), turns, atMs }
  } finally {
    await machine.destroy()
  }
}

test('free: output in order, exit codes; a daemon goes on', async () => {
  const { codes, said } = await play({})
  expect(codes).toEqual([null, 0, 0, 2])
  expect(said).toEqual([
    [2, 1, 'first\n'],
    [3, 2, 'usage: udpechod [port]\n'],
    [1, 1, 'and last\n'],
  ])
})

test('virtual: the same each time, to the last bit', async () => {
  const profile = readProfile('modern')
  const first = await play({ profile })
  expect(first.codes).toEqual([null, 0, 0, 2])
  expect(first.said.at(-1)).toEqual([1, 1, 'and last\n'])
  expect(first.atMs).toBeGreaterThan(30)
  expect(await play({ profile })).toEqual(first)
})

test.each([
  [[{ argv: ['nosuch'] }], /there is no program 'nosuch', only .*echo/],
  [[{ argv: ['echo'], cpu: 2 }], /echo has a CPU or a delay that cannot be/],
  [[{ argv: ['echo', 'x'.repeat(40_000)] }], /echo has too many arguments/],
  [Array.from({ length: 65 }, () => ({ argv: ['echo'] })), /echo has no room in memory/],
])('what cannot be started is said in a line', async (wrong, text) => {
  const machine = new Machine(config({ processes: wrong, ramMiB: 128 }))
  try {
    const died = await machine.powerOn().catch((error: unknown) => error)
    expect(died).toBeInstanceOf(RunError)
    expect(String(died)).toMatch(text)
  } finally {
    await machine.destroy()
  }
})
