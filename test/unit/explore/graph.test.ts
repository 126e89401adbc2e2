import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { instrumentedGraph } from '../../../src/explore/graph.js'

const dir = mkdtempSync(join(tmpdir(), 'softnet-graph-'))
afterAll(() => rmSync(dir, { recursive: true }))

/** A scenario beside a package of this text and these exports. */
function scenario(exports: unknown, files: Record<string, string>): string {
  const root = mkdtempSync(join(dir, 's-'))
  for (const [name, text] of Object.entries({
    'scenario.mjs': "import { f } from 'other'\nexport const actors = [() => f()]\n",
    'node_modules/other/package.json': JSON.stringify({ name: 'other', version: '1.0.0', exports }),
    ...files,
  })) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), text)
  }
  return pathToFileURL(join(root, 'scenario.mjs')).href
}

test('a whole kernel, with the packages that it uses, needs no hooks of a loader', () => {
  const graph = instrumentedGraph(new URL('../../model/kernel/router.js', import.meta.url).href)
  expect(graph!.size).toBeGreaterThan(250)
})

test.each<[string, boolean, unknown, Record<string, string>]>([
  [
    'that has a way in for import and one for require',
    true,
    { import: './a.mjs', require: './a.cjs' },
    { 'node_modules/other/a.mjs': 'export const f = () => 1\n', 'node_modules/other/a.cjs': 'exports.f = () => 1\n' },
  ],
  ['of CommonJS', false, './a.cjs', { 'node_modules/other/a.cjs': 'exports.f = () => 1\n' }],
  [
    'that may share memory',
    false,
    './a.mjs',
    { 'node_modules/other/a.mjs': 'export const f = () => new SharedArrayBuffer(8)\n' },
  ],
  ['that is not there', false, './b.mjs', {}],
])('a package %s: %s', (_what, without, exports, files) => {
  expect(instrumentedGraph(scenario(exports, files)) !== null).toBe(without)
})
