import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { brokenRules, MAX_LINES } from './rules.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
  .filter(f => f.endsWith('.ts'))
  .map(f => `src/${f.replaceAll('\\', '/')}`)

test('every file of src keeps the rules of the floors', () => {
  expect(sources.length).toBeGreaterThan(80)
  expect(sources.flatMap(f => brokenRules(f, readFileSync(join(root, f), 'utf8')))).toEqual([])
})

test.each([
  ['an import from above', 'src/sync/x.ts', "import { kmalloc } from '../mm/kmalloc.js'\n"],
  ['a type from above', 'src/mm/x.ts', "import type { task_struct } from '../sched/task.js'\n"],
  ['an export from above', 'src/lib/x.ts', "export * from '../arch/ram.js'\n"],
  ['an import over several lines', 'src/net/core/x.ts', "import {\n  ip_rcv,\n} from '../ipv4/ip_input.js'\n"],
  ['Node in the kernel', 'src/net/core/x.ts', "import { readFileSync } from 'node:fs'\n"],
  ['Node in the kernel, by the back door', 'src/net/xfrm/x.ts', "process.getBuiltinModule('node:fs')\n"],
  ['the kernel in the lab', 'src/lab/x.ts', "import { alloc_skb } from '../net/core/skbuff.js'\n"],
  ['the kernel in the hardware', 'src/hw/x.ts', "import { netif_rx } from '../net/core/dev.js'\n"],
  ['the kernel in the list of the zoo', 'src/zoo/x.ts', "import { load } from '../arch/atomic.js'\n"],
  ['a bug of the zoo in the lab', 'src/lab/x.ts', "import { setup } from '../zoo/bugs/hdrincl.js'\n"],
  ['Atomics outside arch', 'src/mm/x.ts', 'Atomics.add(RAM.i32, 0, 1)\n'],
  ['state in a variable', 'src/net/core/x.ts', 'let count = 0\n'],
  ['the time of day', 'src/irq/x.ts', 'const t = Date.now()\n'],
  ['a folder that is no floor', 'src/misc/x.ts', ''],
  ['a long file', 'src/lib/x.ts', '\n'.repeat(MAX_LINES + 1)],
])('%s is noticed', (_what, file, text) => {
  expect(brokenRules(file, text)).toHaveLength(1)
})

test.each([
  ['src/net/ipv4/x.ts', "import { alloc_skb } from '../core/skbuff.js'\nconst x = 1\n"],
  [
    'src/lab/x.ts',
    "import { join } from 'node:path'\nimport type { SystemMap } from '../init/system_map.js'\nlet x = 1\n",
  ],
])('a sound %s passes', (file, text) => {
  expect(brokenRules(file, text)).toEqual([])
})
