/** `softnet forward` in virtual time: the same bytes twice, and the same packets as with a real clock. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { readPcap } from '../../src/lab/pcap.js'
import type { ForwardResult } from '../../src/lab/types.js'
import { pcapOf } from '../helpers/captures.js'
import { ROUTER, udpFrame } from '../helpers/frames.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const bin = join(root, 'bin/softnet.mjs')
const data = (name: string): string => join(root, 'data', name)
const dir = mkdtempSync(join(tmpdir(), 'softnet-forward-'))
afterAll(() => rmSync(dir, { recursive: true }))

const PORTS = ['eth0', 'eth1', 'eth2']
const flow = { src: '10.1.0.2', dst: '10.2.0.2', to: ROUTER, from: '02:00:00:00:01:02' }
const many = (n: number): Uint8Array[] =>
  Array.from({ length: n }, (_, k) => udpFrame({ ...flow, sport: 1024 + (k % 500), id: k & 0xffff }))
writeFileSync(join(dir, 'many.pcap'), pcapOf(many(1000))) // 100 us apart

/** One run. @returns the JSON and the captures, as bytes */
function forward(
  name: string,
  input: string,
  ...flags: string[]
): { json: string; out: Buffer[]; result: ForwardResult } {
  const args = ['forward', '--in', `eth0=${input}`, '--routes', data('example.routes'), '--json', `${name}.json`]
  for (const port of PORTS) args.push('--out', `${port}=${name}-${port}.pcap`)
  const { status, stderr } = spawnSync(process.execPath, [bin, ...args, ...flags], { cwd: dir, encoding: 'utf8' })
  expect([status, stderr.replace(/^softnet: warning: .*\n/, '')]).toEqual([0, ''])
  const json = readFileSync(join(dir, `${name}.json`), 'utf8')
  const out = PORTS.map(port => readFileSync(join(dir, `${name}-${port}.pcap`)))
  return { json, out, result: JSON.parse(json) as ForwardResult }
}

/** What went where, whatever the clock. */
function totals({ hash: _, ...rest }: ForwardResult): Omit<ForwardResult, 'hash'> {
  return rest
}

describe('the same run is the same bytes, and its packets are those of the real clock', () => {
  test.each([
    [1, 'napi', 'tas', 'flat'],
    [2, 'softnet', 'ticket', 'original'],
    [4, 'interrupt', 'mcs', 'x10'],
    [4, 'polled', 'tas', 'flat'],
  ])('%i CPUs, %s, %s, %s', { timeout: 120_000 }, (cpus, rx, lock, timing) => {
    const flags = ['--cpus', String(cpus), '--rx', rx, '--lock', lock, '--timing', timing]
    for (const input of [data('mix.pcap'), 'many.pcap']) {
      const first = forward('first', input, ...flags, '--clock', 'virtual')
      const again = forward('again', input, ...flags, '--clock', 'virtual')
      expect(again.json).toBe(first.json)
      again.out.forEach((bytes, k) => {
        expect(bytes.equals(first.out[k]!)).toBe(true)
      })
      expect(first.result.hash).toMatch(/^[0-9a-f]{8}$/)
      const real = forward('real', input, ...flags, '--timing', 'flat') // the one that loses none on a busy host
      expect(totals(first.result)).toEqual(totals(real.result))
      expect(real.result).not.toHaveProperty('hash')
      const { received, forwarded, delivered, dropped } = first.result
      expect(received).toBe(forwarded + delivered + Object.values(dropped).reduce((a, b) => a + b, 0))
    }
  })
  test('the seed and the profile make another run of it, with the same packets', () => {
    const run = (...flags: string[]): ForwardResult =>
      forward('seed', 'many.pcap', '--cpus', '4', '--clock', 'virtual', ...flags).result // the seed decides among equals
    const runs = [run(), run('--seed', '2'), run('--profile', 'decstation-3000-300')]
    expect(new Set(runs.map(r => r.hash)).size).toBe(3)
    for (const r of runs) expect(totals(r)).toEqual(totals(runs[0]!))
  })
})

test('the captures have the times of the virtual clock', async () => {
  const gaps = async (...flags: string[]): Promise<number[]> => {
    forward('times', 'many.pcap', '--clock', 'virtual', ...flags)
    const { times } = await readPcap(join(dir, 'times-eth1.pcap'))
    return [...times].slice(1).map((at, k) => at - times[k]!)
  }
  const mean = (n: number[]): number => n.reduce((a, b) => a + b, 0) / n.length
  expect(mean(await gaps('--timing', 'original'))).toBeCloseTo(100_000, -2)
  expect(mean(await gaps('--timing', 'x2'))).toBeCloseTo(50_000, -2)
  const [fast, slow] = [mean(await gaps()), mean(await gaps('--profile', 'decstation-3000-300'))]
  expect(fast).toBeLessThan(2000) // a frame takes a modern core about half a microsecond
  expect(slow).toBeGreaterThan(20 * fast) // and a DECstation of 1994 some 70
})

test('two captures are played on one clock', () => {
  const other = { ...flow, src: '10.2.0.2', dst: '10.1.0.2', to: '02:00:00:00:00:02', from: '02:00:00:00:02:02' }
  writeFileSync(join(dir, 'late.pcap'), pcapOf([udpFrame(other)], 5e9 + 7_000_000))
  writeFileSync(join(dir, 'soon.pcap'), pcapOf([udpFrame(flow)], 5e9))
  const { out } = forward('both', 'soon.pcap', '--in', 'eth1=late.pcap', '--timing', 'original', '--clock', 'virtual')
  const at = (pcap: Buffer): number => pcap.readUInt32LE(24) * 1e9 + pcap.readUInt32LE(28)
  expect(at(out[0]!) - at(out[1]!)).toBeCloseTo(7_000_000, -5)
})

test('without --clock virtual a profile is not looked at', () => {
  expect(forward('idle', 'many.pcap', '--profile', 'nowhere').result).toMatchObject({ forwarded: 1000 })
})

test('a profile that leaves no time between two ticks: one line, no hang', () => {
  const profile = JSON.parse(readFileSync(data('profiles/modern.json'), 'utf8')) as { costs: Record<string, number> }
  Object.assign(profile.costs, { timer_interrupt: 1e9, schedule: 1e7 })
  writeFileSync(join(dir, 'slow.json'), JSON.stringify(profile))
  const args = ['forward', '--in', 'eth0=many.pcap', '--routes', data('example.routes')]
  const { status, stderr } = spawnSync(
    process.execPath,
    [bin, ...args, '--clock', 'virtual', '--profile', 'slow.json'],
    {
      cwd: dir,
      encoding: 'utf8',
    },
  )
  expect(stderr).toMatch(
    /^softnet: the machine does not come up within 20 s of its time: init sleeps, or a tick costs more .*\n$/,
  )
  expect(status).toBe(1)
})

test('Ctrl-C in the middle of a long pass: ends at once, leaves no file', async () => {
  writeFileSync(join(dir, 'long.pcap'), pcapOf(many(400_000)))
  const args = ['forward', '--in', 'eth0=long.pcap', '--routes', data('example.routes'), '--cpus', '4']
  const child = spawn(process.execPath, [bin, ...args, '--clock', 'virtual', '--json', 'never.json'], { cwd: dir })
  const err: Buffer[] = []
  child.stderr.on('data', (b: Buffer) => err.push(b))
  setTimeout(() => child.kill('SIGINT'), 2500)
  expect(await new Promise(resolve => child.on('exit', resolve))).toBe(130)
  expect(Buffer.concat(err).toString()).toMatch(/interrupted, the machine is off and no file was written/)
  expect(readdirSync(dir).filter(f => f.includes('never'))).toEqual([])
})
