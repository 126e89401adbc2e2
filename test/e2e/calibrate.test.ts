/** `softnet calibrate` in a short form: what it writes, and that the profile is one. How fast the host is decides nothing here. */
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { GROUPS } from '../../src/lab/calibrate/costs.js'
import { IRQ_COST_NS } from '../../src/lab/config.js'
import { readProfile } from '../../src/lab/profile.js'
import type { CalibrateResult } from '../../src/lab/types.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const bin = join(root, 'bin/softnet.mjs')
const dir = mkdtempSync(join(tmpdir(), 'softnet-calibrate-'))
afterAll(() => rmSync(dir, { recursive: true }))

function softnet(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8', cwd: dir })
  return { code: status, out: stdout, err: stderr }
}

test('writes a profile of this host, which virtual time takes', () => {
  const run = softnet('calibrate', '--seconds', '1', '--no-check', '--out', 'mine.json', '--json', 'all.json')
  expect([run.code, run.err]).toEqual([0, '']) // no progress bar in a pipe
  expect(run.out).toMatch(/Under load \(napi\), ns/)
  expect(run.out).toMatch(/The profile is mine\.json\.\n$/)
  const result = JSON.parse(readFileSync(join(dir, 'all.json'), 'utf8')) as CalibrateResult
  expect(result.schema).toBe('softnet.calibrate/1')
  expect(result.check).toBeNull()
  expect(result.groups.map(g => g.name)).toEqual(GROUPS.map(g => g.name))
  for (const stage of result.stages) {
    expect(stage.ns).toBeGreaterThan(0)
    expect(stage.trials).toBeGreaterThan(0)
  }
  for (const ns of Object.values(result.alone)) expect(ns).toBeGreaterThanOrEqual(0)
  const profile = readProfile(join(dir, 'mine.json'))
  expect(profile).toEqual(result.profile)
  expect(profile.name).toBe('mine')
  expect(profile.source).toMatch(/softnet calibrate.*Node/)
  expect(Object.keys(profile.costs).sort()).toEqual(Object.keys(readProfile('modern').costs).sort())
  expect(profile.board_ns).toBeGreaterThan(0)
  expect(profile.costs['irq_entry_exit']).toBe(Math.round((IRQ_COST_NS * profile.hz) / 1e9))
  const livelock = ['livelock', '--clock', 'virtual', '--profile', 'mine.json', '--rates', '20k', '--duration', '20']
  expect(softnet(...livelock, '--rx', 'napi').code).toBe(0)
}, 180_000)

test('Ctrl-C: ends soon, and leaves neither a profile nor half of one', async () => {
  const child = spawn(process.execPath, [bin, 'calibrate', '--out', 'never.json', '--json', 'never.all.json'], {
    cwd: dir,
  })
  await new Promise(resolve => setTimeout(resolve, 2500))
  child.kill('SIGINT')
  expect(await new Promise(resolve => child.on('exit', resolve))).toBe(130)
  expect(readdirSync(dir).filter(f => f.includes('never'))).toEqual([])
})
