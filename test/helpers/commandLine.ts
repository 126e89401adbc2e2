/** commandLine.ts - the command line as a user calls it, in a folder of its own. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'

export const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
export const bin = join(root, 'bin/softnet.mjs')
export const data = (name: string): string => join(root, 'data', name)

/** Where softnet() runs. It goes when the tests of the file have ended. */
export const dir = mkdtempSync(join(tmpdir(), 'softnet-cli-'))
afterAll(() => rmSync(dir, { recursive: true }))

export function softnet(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8', cwd: dir })
  return { code: status, out: stdout, err: stderr }
}
