/** `softnet zoo` as a user meets it. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import type { ZooResult } from '../../src/lab/zoo.js'

const bin = join(dirname(fileURLToPath(import.meta.url)), '../../../bin/softnet.mjs')
const dir = mkdtempSync(join(tmpdir(), 'softnet-zoo-'))
afterAll(() => rmSync(dir, { recursive: true }))

function zoo(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, 'zoo', ...args], { encoding: 'utf8', cwd: dir })
  return { code: status, out: stdout, err: stderr }
}

test('bugs by number and by name, and their twins: a table, a file, exit code 0', () => {
  const { code, out, err } = zoo('--only', 'j7,hdrincl,19', '--twins', '--schedules', '200', '--json', 'zoo.json')
  expect([code, err]).toEqual([0, ''])
  const rows = out.split('\n')
  expect(rows[1]).toMatch(/19 {2}The mask of pending soft interrupts .* yes +invariant +\d+ +\d+ +\d+/)
  expect(rows[2]).toMatch(/26 {2}Whether the user brings the header .* yes +exception/)
  expect(rows[3]).toMatch(/J7 {2}A byte of a word .* yes +data race/)
  expect(out).toContain('3 fixed twins, 600 schedules: 0 false reports')
  const result = JSON.parse(readFileSync(join(dir, 'zoo.json'), 'utf8')) as ZooResult
  expect(result).toMatchObject({ schema: 'softnet.zoo/1', schedules: 200, summary: { bugs: 3, right: 3, twins: 3 } })
  expect(result.finds.map(f => f.number)).toEqual(['19', '26', 'J7'])
})

test('a bug that is not found is exit code 1', () => {
  const { code, out } = zoo('--only', '59', '--schedules', '1', '--json', '-')
  expect(code).toBe(1)
  const { finds } = JSON.parse(out) as ZooResult
  expect(finds).toMatchObject([{ detector: null, right: false, schedules: 1 }])
})

test.each([
  [['--only', '999'], /--only 999: no such bug, must be numbers or names/],
  [['--only', ''], /--only : no such bug/],
  [['--schedules', '0'], /--schedules 0: must be a whole number/],
  [['--seed', 'x'], /--seed x: must be a whole number/],
  [['everything'], /too many arguments for 'zoo'/],
  [['--json', ''], /--json: the name of the file is empty/],
])('%j: one line, exit code 2', (args, line) => {
  const { code, out, err } = zoo(...args)
  expect([code, out]).toEqual([2, ''])
  expect(err).toMatch(line)
  expect(err.trimEnd().split('\n')).toHaveLength(1)
})
