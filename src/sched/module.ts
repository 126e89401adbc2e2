/**
 * module.ts - loadable modules (kernel/module.c of 2.6.11): init and exit, references, exported symbols, who uses whom.
 *
 * Lock charter
 *   module_mutex serialises loading and unloading, and guards `state` and the lists of users. A reference is one atomic step on
 *   `refcnt`, which is below 0 unless the module is alive: who takes the last step down to unload has it alone. 2.6.11 counts
 *   per CPU and stops the whole machine to add the counts up; one word does the same here.
 *   init and exit run without module_mutex and may sleep.
 *
 * The code of all modules lies in the image, as their structs do; what is loaded or unloaded is what it registers.
 */
import { atomic, by, embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { cmpxchg, fetch_add, load, store } from '../arch/atomic.js'
import { EAGAIN, EBUSY, EEXIST, ENOENT } from '../lib/errno.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from './semaphore.js'
export const MODULE_STATE_GONE = 0
export const MODULE_STATE_COMING = 1
export const MODULE_STATE_LIVE = 2
export const MODULE_STATE_GOING = 3
/** `refcnt` of a module that is not alive. */
const DEAD = -0x40000000
export type module_init_fn = () => Generator<void, number, void>
export type module_exit_fn = () => Generator<void, void, void>

export class module_t extends Struct {
  declare state: number
  declare refcnt: number
  declare users: number
}
export const MODULE: Layout<module_t> = layout('module', module_t, {
  state: by('module_mutex', word),
  refcnt: atomic(word), // users of its code, loaded modules that depend on it among them
  users: by('module_mutex', word), // loaded modules that depend on it
})
class module_core extends Struct {
  declare mutex: semaphore
}
const CORE: Layout<module_core> = layout('module_core', module_core, { mutex: embed(SEMAPHORE) })
const core = DEFINE_STATIC('module_core', CORE)
interface module_text {
  name: string
  mod: module_t
  init: Sym<module_init_fn>
  exit: Sym<module_exit_fn>
  uses: string[]
  alias: string
}
const texts: module_text[] = []
const exported = new Map<string, { owner: module_t; value: Sym<unknown> }>()
/**
 * define_module - enter a module into the image, at module load of its file.
 * @param uses names of modules whose exports it needs: they are loaded first and cannot go before it
 * @param alias another name that it is asked for by (MODULE_ALIAS)
 */
export function define_module(
  name: string,
  parts: {
    init: module_init_fn
    exit: module_exit_fn
    uses?: string[]
    alias?: string
    exports?: Record<string, Sym<unknown>>
  },
): module_t {
  const mod = DEFINE_STATIC(`module:${name}`, MODULE)
  texts.push({
    name,
    mod,
    init: symbol(`${name}:init`, parts.init),
    exit: symbol(`${name}:exit`, parts.exit),
    uses: parts.uses ?? [],
    alias: parts.alias ?? '',
  })
  for (const [key, value] of Object.entries(parts.exports ?? {})) exported.set(key, { owner: mod, value })
  return mod
}
function find(name: string): module_text | undefined {
  return texts.find(t => t.name === name || t.alias === name)
}
/** try_module_get - hold the module at this address; 0 is the kernel, which stays. @context any @returns false: it is not alive */
export function try_module_get(mod: number): boolean {
  if (mod === 0) return true
  const refcnt = MODULE.ref(mod).addr + REFCNT
  for (let seen = load(refcnt); seen >= 0; ) {
    const was = cmpxchg(refcnt, seen, seen + 1)
    if (was === seen) return true
    seen = was
  }
  return false
}
/** module_put - @context any */
export function module_put(mod: number): void {
  if (mod !== 0) fetch_add(mod + REFCNT, -1)
}
const REFCNT = MODULE.offset('refcnt')
/** symbol_get - a function that a living module exports, and a reference on the module; 0: there is none. @context any */
export function symbol_get(name: string): Sym<unknown> {
  const found = exported.get(name)
  return found !== undefined && try_module_get(found.owner.addr) ? found.value : 0
}
/** symbol_put - @context any */
export function symbol_put(name: string): void {
  module_put(exported.get(name)!.owner.addr)
}
/** Take what it uses. @returns 0, or -ENOENT: something of that is not loaded */
function link(text: module_text): number {
  for (const [k, name] of text.uses.entries()) {
    const used = find(name)
    if (used !== undefined && try_module_get(used.mod.addr)) {
      used.mod.users++
      continue
    }
    unlink({ ...text, uses: text.uses.slice(0, k) })
    return -ENOENT
  }
  return 0
}
function unlink(text: module_text): void {
  for (const name of text.uses) {
    const used = find(name)!
    used.mod.users--
    module_put(used.mod.addr)
  }
}
/** init_module - load one. @context process @returns 0, -ENOENT: no such module or symbol, -EEXIST, or what its init says */
export function* init_module(name: string): Generator<void, number, void> {
  const text = find(name)
  if (text === undefined) return -ENOENT
  const { mod } = text
  yield* down(core.mutex)
  const err = mod.state !== MODULE_STATE_GONE ? -EEXIST : link(text)
  if (err === 0) mod.state = MODULE_STATE_COMING
  if (err === 0) store(mod.addr + REFCNT, 1) // its own init holds it, and may hand references out
  up(core.mutex)
  if (err !== 0) return err
  const ret = yield* call(text.init)()
  yield* down(core.mutex)
  if (ret < 0) {
    store(mod.addr + REFCNT, DEAD)
    unlink(text)
  } else module_put(mod.addr)
  mod.state = ret < 0 ? MODULE_STATE_GONE : MODULE_STATE_LIVE
  up(core.mutex)
  return ret < 0 ? ret : 0
}
/** delete_module - unload. @context process @returns 0, -ENOENT, -EBUSY: coming or going, -EAGAIN: in use (EWOULDBLOCK) */
export function* delete_module(name: string): Generator<void, number, void> {
  const text = find(name)
  if (text === undefined) return -ENOENT
  const { mod } = text
  yield* down(core.mutex)
  let err = 0
  if (mod.state === MODULE_STATE_GONE) err = -ENOENT
  else if (mod.users > 0) err = -EAGAIN
  else if (mod.state !== MODULE_STATE_LIVE) err = -EBUSY
  else if (cmpxchg(mod.addr + REFCNT, 0, DEAD) !== 0) err = -EAGAIN
  if (err === 0) mod.state = MODULE_STATE_GOING
  up(core.mutex)
  if (err !== 0) return err
  yield* call(text.exit)()
  yield* down(core.mutex)
  unlink(text)
  mod.state = MODULE_STATE_GONE
  up(core.mutex)
  return 0
}
/** request_module - load one and what it uses; what is loaded already stays. @context process @returns 0 or what init_module says */
export function* request_module(name: string): Generator<void, number, void> {
  const text = find(name)
  if (text === undefined) return -ENOENT
  if (text.mod.state !== MODULE_STATE_GONE) return 0
  for (const used of text.uses) {
    const err = yield* request_module(used)
    if (err !== 0) return err
  }
  const err = yield* init_module(name)
  return err === -EEXIST ? 0 : err
}
const STATES = ['', 'Loading', 'Live', 'Unloading']
/** modules_text - /proc/modules: name, size of its data, references, who uses it, state. */
export function modules_text(): string {
  return texts
    .filter(t => t.mod.state !== MODULE_STATE_GONE)
    .map(t => {
      const users = texts
        .filter(u => u.mod.state !== MODULE_STATE_GONE && u.uses.includes(t.name))
        .map(u => `${u.name},`)
      return `${t.name} ${MODULE.size} ${load(t.mod.addr + REFCNT)} ${users.join('') || '-'} ${STATES[t.mod.state]} 0x${t.mod.addr.toString(16)}\n`
    })
    .join('')
}
/** modules_loaded - names, the last one that was defined first: an order in which they can be unloaded. */
export function modules_loaded(): string[] {
  return texts
    .filter(t => t.mod.state === MODULE_STATE_LIVE)
    .map(t => t.name)
    .reverse()
}
/** modules_init - nothing is loaded. @context boot, CPU 0 */
export function modules_init(): void {
  init_MUTEX(core.mutex)
  for (const { mod } of texts) store(mod.addr + REFCNT, DEAD)
}
