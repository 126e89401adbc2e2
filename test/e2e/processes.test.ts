/** Programs with arguments on whole machines: the host gets their output and exit codes, with both clocks. */
import { expect, test } from 'vitest'
import type { ConsoleRecord } from '../../src/lab/consoleReader.js'
import { RunError } from '../../src/lab/errors.js'
import { Machine, type MachineConfig } from '../../src/lab/machine.js'
import { parsePcap } from '../../src/lab/pcap.js'
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

test('free: output, exit codes; a daemon goes on', async () => {
  const { codes, said } = await play({})
  expect(codes).toEqual([null, 0, 0, 2])
  // Which process is first is up to the host; in virtual time it is the one that is not told to wait.
  expect(new Set(said)).toEqual(
    new Set([
      [2, 1, 'first\n'],
      [3, 2, 'usage: udpechod [port]\n'],
      [1, 1, 'and last\n'],
    ]),
  )
})

test('virtual: the same each time, to the last bit', async () => {
  const profile = readProfile('modern')
  const first = await play({ profile })
  expect(first.codes).toEqual([null, 0, 0, 2])
  expect(first.said.at(-1)).toEqual([1, 1, 'and last\n'])
  expect(first.atMs).toBeGreaterThan(30)
  expect(await play({ profile })).toEqual(first)
})

test('signals on a machine of two CPUs: handlers, default actions, and a capture that is ended by one', async () => {
  // Processes have their numbers in the order of the list; where these begin is seen from what the first one says.
  const started = [
    { argv: ['tcpdump', '-i', 'lo', '-w', 'lo.pcap', 'icmp'], cpu: 1 },
    { argv: ['udpechod', '7'], cpu: 1 },
    { argv: ['udpsink', '-w', '60'], cpu: 0 },
    { argv: ['ping', '-c', '2', '-i', '0.02', '127.0.0.1'], delayMs: 20 },
  ]
  const profile = readProfile('modern')
  const pids = async (): Promise<number[]> => {
    const machine = new Machine(
      config({ profile, ramMiB: 96, processes: [...started, { argv: ['kill', '30000'], delayMs: 400 }] }),
    )
    try {
      await machine.powerOn()
      const seen = new Map<number, number>()
      await machine.pass(500)
      for (const r of machine.console()) seen.set(r.process, r.pid)
      await machine.halt()
      return started.map((_, k) => seen.get(0)! + k)
    } finally {
      await machine.destroy()
    }
  }
  const [dump, echod, sink] = (await pids()).map(String)
  const killers = [
    { argv: ['kill', '-INT', dump!], delayMs: 200 },
    { argv: ['kill', '-STOP', sink!], delayMs: 200 },
    { argv: ['kill', sink!], delayMs: 220 }, // waits until it goes on
    { argv: ['kill', '-9', echod!], cpu: 1, delayMs: 230 },
    { argv: ['kill', '-CONT', sink!], cpu: 1, delayMs: 240 },
    { argv: ['kill', echod!], uid: 7, delayMs: 100 },
  ]
  const machine = new Machine(config({ profile, ramMiB: 96, processes: [...started, ...killers] }))
  try {
    await machine.powerOn()
    let complaints = ''
    const codes = await machine.processes(1000, r => (complaints += r.fd === 2 ? r.text : ''))
    expect(codes).toEqual([0, 128 + 9, 128 + 15, 0, 0, 0, 0, 0, 0, 1])
    expect(complaints).toContain(`kill: ${echod}: Operation not permitted\n`)
    expect(complaints).toContain('4 packets captured\n')
    const [file] = machine.files()
    expect([file!.name, parsePcap(file!.bytes, 'lo.pcap').lengths.length]).toEqual(['lo.pcap', 4])
    await machine.halt()
    expect(await machine.audit()).toEqual([])
  } finally {
    await machine.destroy()
  }
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

const bad = [new URL('./programs/bad.js', import.meta.url).href]

test.each(['virtual', 'real'] as const)("a program's mistake ends the program, not the machine (%s)", async clock => {
  const ways = ['load', 'store', 'type', 'throw', 'handled', 'twice', 'caught']
  const { codes, said } = await play({
    ...(clock === 'virtual' ? { profile: readProfile('modern') } : {}),
    programs: bad,
    processes: [
      ...ways.map((way, k) => ({ argv: ['crash', way], delayMs: 10 * k })),
      { ...{ argv: LATE }, delayMs: 100 },
    ],
  })
  expect(codes).toEqual([139, 139, 134, 134, 139, 139, 0, 0])
  const of = (n: number, fd: number): string =>
    said
      .filter(([p, f]) => p === n && f === fd)
      .map(([, , text]) => text)
      .join('')
  expect(of(0, 2)).toMatch(/^page_fault: segmentation fault at 0x10\n {4}at .*load.*\n/)
  expect(of(1, 2)).toMatch(/^page_fault: segmentation fault at 0xc0000000\n/)
  expect(of(2, 2)).toMatch(/^TypeError: Cannot read properties of null.*\n {4}at .*type.*\n/)
  expect(of(3, 2)).toMatch(/^Error: two\nlines\n/)
  expect(of(4, 1)).toBe('about to handled\nhandler of 11\n')
  expect(of(5, 1)).toBe('about to twice\nonce\n')
  expect(of(6, 1)).toBe('about to caught\ncaught\n')
})

test('nice: slices of 100 ms for who is at 0, of 5 ms for who is at 19', async () => {
  const { said } = await play({
    cpus: 1,
    profile: readProfile('modern'),
    programs: bad,
    processes: [{ argv: ['greedy', '0', '1500'] }, { argv: ['greedy', '19', '1500'] }],
  })
  const usage = said.map(([, , text]) => JSON.parse(text as string) as { utime: number; stime: number; nivcsw: number })
  const [a, b] = usage.map(u => u.utime + u.stime) as [number, number]
  const rounds = usage[1]!.nivcsw
  expect(rounds).toBeGreaterThan(10)
  expect(Math.floor(a / 100_000)).toBe(rounds)
  expect(b).toBe(100_000 + 5000 * (rounds - 1)) // the first slice had begun before it was nice
})
