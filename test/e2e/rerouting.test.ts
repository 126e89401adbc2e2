/** Three routers that speak RIP, a line that is cut and mended: the example of docs/scenarios, by the command line. */
import { execFile } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const run = promisify(execFile)

test('a link fails: the way goes over the third router until it is mended', async () => {
  const args = [join(root, 'bin/softnet.mjs'), 'run', join(root, 'data/scenarios/rerouting.yaml')]
  const { stdout } = await run(process.execPath, args, { cwd: root })
  expect([...stdout.matchAll(/^r1: 10\.3\.0\.1 via (\S+) dev (\S+)/gm)].map(m => `${m[1]} ${m[2]}`)).toEqual([
    '10.13.0.3 eth1',
    '10.12.0.2 eth2',
    '10.13.0.3 eth1',
  ])
  expect(stdout.match(/^ok /gm)).toHaveLength(6)
}, 120_000)
