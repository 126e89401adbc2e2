/** rules.ts - the rules of the floors, as functions of a file's name and text, so that the test can show that each can fail. */

/** From the ground up. A file may import from its own floor and from those listed for it, never sideways or up. */
const KERNEL_FLOORS = [
  'lib',
  'arch',
  'abi',
  'sync',
  'mm',
  'sched',
  'irq',
  'rcu',
  'net/wire',
  'net/core',
  'net/netlink',
  'net/packet',
  'net/xfrm',
  'net/ipv4',
]
const below = (floor: string): string[] => KERNEL_FLOORS.slice(0, KERNEL_FLOORS.indexOf(floor) + 1)

const ALLOWED: Record<string, string[]> = {
  ...Object.fromEntries(KERNEL_FLOORS.map(f => [f, below(f)])),
  // Timers and soft interrupts wake tasks; tasks never call up: `irq` stands on `sched`.
  'drivers/base': [...below('rcu'), 'drivers/base'],
  'drivers/net': [...below('net/core'), 'drivers/base', 'drivers/net'],
  'net/unix': [...below('net/core'), 'net/unix'],
  fs: [...below('net/ipv4'), 'fs'],
  'drivers/char': [...below('rcu'), 'fs', 'drivers/char'],
  syscall: [...below('net/ipv4'), 'net/unix', 'fs', 'drivers/char', 'syscall'],
  user: [...below('rcu'), 'syscall', 'user'],
  init: [
    ...below('net/ipv4'),
    'net/unix',
    'drivers/base',
    'drivers/net',
    'drivers/char',
    'fs',
    'syscall',
    'user',
    'init',
  ],
  // Programs that are loaded beside the kernel: nothing of it imports them.
  torture: [...below('net/core'), 'torture'],
  hw: ['lib', 'arch', 'net/wire', 'hw'],
  // Controlled runs of anybody's code: no machine and no kernel in them.
  explore: ['lib', 'explore'],
  // The list of bugs, and the bugs themselves: on the kernel's own modules where it has the part.
  zoo: ['zoo'],
  'zoo/kit': [...below('net/ipv4'), 'zoo/kit'],
  'zoo/bugs': [...below('net/ipv4'), 'zoo/kit', 'zoo/bugs'],
  lab: ['lib', 'hw', 'explore', 'zoo', 'lab'],
}
/** The lab reads the machine's RAM and types; these are the parts of the kernel it may name in `import type`. */
const LAB_TYPES = ['arch', 'init', 'abi', 'net/core', 'mm', 'workers']

/** Files that may keep state of the thread in a module-level `let`: it is the CPU's own, or the loader's. */
const MAY_LET = /^src\/(arch|abi|lab)\//
/** A line between machines lies in memory of its own. */
const MAY_USE_ATOMICS = /^src\/((arch|explore|lab|zoo)\/|hw\/link\.ts$)/
const MAY_USE_NODE = /^src\/(explore|lab)\//
/** The seams to ciphers and to compression, and whose they are. */
const SEAMS: Record<string, RegExp> = { 'src/net/xfrm/crypto.ts': /^@noble\//, 'src/net/xfrm/deflate.ts': /^pako$/ }
/** The lab, and the one place where the machine gets its clock. */
const MAY_ASK_THE_TIME = /^src\/((explore|lab)\/|arch\/boot\.ts$)/

export const MAX_LINES = 500

export function floorOf(file: string): string {
  const dirs = file.split('/').slice(1, -1)
  if (dirs[0] === 'net' || dirs[0] === 'drivers' || dirs[0] === 'zoo') return dirs.slice(0, 2).join('/')
  return dirs[0] ?? ''
}

function resolve(file: string, specifier: string): string {
  const parts = file.split('/').slice(0, -1)
  for (const p of specifier.split('/')) {
    if (p === '..') parts.pop()
    else if (p !== '.') parts.push(p)
  }
  return parts.join('/')
}

interface Import {
  typeOnly: boolean
  specifier: string
}

function importsOf(text: string): Import[] {
  return [...text.matchAll(/^(?:import|export)\s+(type\s)?(?:[^'"]*?\sfrom\s+)?'([^']+)'/gm)].map(m => ({
    typeOnly: m[1] !== undefined || /^(?:import|export)\s+\{\s*(type\s+\w+,?\s*)+\}/.test(m[0]),
    specifier: m[2]!,
  }))
}

/** brokenRules - every rule of the house that a file of src/ breaks, one line each. */
export function brokenRules(file: string, text: string): string[] {
  const broken: string[] = []
  const floor = floorOf(file)
  const allowed = ALLOWED[floor]
  if (allowed === undefined) return [`${file}: "${floor}" is no floor`]
  for (const { typeOnly, specifier } of importsOf(text)) {
    if (!specifier.startsWith('.')) {
      const seam = SEAMS[file]?.test(specifier) === true
      if (!MAY_USE_NODE.test(file) && !seam) broken.push(`${file}: imports ${specifier}`)
      continue
    }
    const target = resolve(file, specifier)
    const its = target.startsWith('src/') ? floorOf(target) : target.split('/')[0]!
    if (allowed.includes(its)) continue
    if (floor === 'lab' && typeOnly && LAB_TYPES.includes(its)) continue
    broken.push(`${file}: ${floor} imports ${target}`)
  }
  if (/\bAtomics\./.test(text) && !MAY_USE_ATOMICS.test(file)) broken.push(`${file}: uses Atomics itself`)
  if (/\bgetBuiltinModule\b/.test(text) && !MAY_USE_NODE.test(file)) broken.push(`${file}: asks for a module of Node`)
  if (/^(export )?let /m.test(text) && !MAY_LET.test(file)) broken.push(`${file}: keeps state in a module-level let`)
  if (!MAY_ASK_THE_TIME.test(file) && /\b(Date\.now|Math\.random|setTimeout|performance\.now)\b/.test(text))
    broken.push(`${file}: asks the host for time or chance`)
  if (text.split('\n').length - 1 > MAX_LINES) broken.push(`${file}: longer than ${MAX_LINES} lines`)
  return broken
}
