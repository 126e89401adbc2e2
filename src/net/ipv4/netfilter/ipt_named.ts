/**
 * ipt_named.ts - what rules share by a name, and what lives as long as a rule has it.
 *
 * Lock charter
 *   Each match that keeps some has a registry, whose lock guards the list, how many rules have what is in it, and what the match
 *   keeps there. Taken under a table of rules' lock for reading, or with ipt_mutex, with bottom halves off.
 */
import { by, bytes, embed, konst, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import { INIT_LIST_HEAD, LIST, list_add_tail, list_del_init, type list_head, list_next } from '../../../abi/list.js'
import { config } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { jiffies } from '../../../irq/timer.js'
import { words_text } from '../../../lib/iptables.js'
import { jhash_3words } from '../../../lib/jhash.js'
import { spin_lock_bh, spin_unlock_bh } from '../../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../../sync/spinlock.js'

const i32 = RAM.i32
const NAME_WORDS = 8

export class ipt_named extends Struct {
  declare list: list_head
  declare use: number
  declare name: number
}
export const NAMED: Layout<ipt_named> = layout('ipt_named', ipt_named, {
  list: by('registry.lock', embed(LIST)),
  use: by('registry.lock', word), // rules that have it
  name: bytes(NAME_WORDS * 4),
})

export class named_registry extends Struct {
  declare lock: spinlock_t
  declare tables: list_head
  declare rnd: number
  declare alive: number
}
export const REGISTRY: Layout<named_registry> = layout('named_registry', named_registry, {
  lock: embed(SPINLOCK),
  tables: by('lock', embed(LIST)),
  rnd: konst(word),
  alive: konst(word), // the module has been loaded
})

/** registry_init - @context process, a module's init */
export function registry_init(r: named_registry): void {
  spin_lock_init(r.lock)
  INIT_LIST_HEAD(r.tables)
  r.rnd = config('seed') ^ jiffies()
  r.alive = 1
}

/** named_chain - of `n` list heads at `chains` the one for these words. */
export function named_chain(r: named_registry, chains: number, n: number, a: number, b: number, c: number): list_head {
  return LIST.ref(chains + ((jhash_3words(a, b, c, r.rnd) >>> 0) % n) * LIST.size)
}
export function init_chains(chains: number, n: number): void {
  for (let k = 0; k < n; k++) INIT_LIST_HEAD(LIST.ref(chains + k * LIST.size))
}

/** `f` is asked of each until it says yes. @locks the registry's is held */
function named_each(head: list_head, f: (n: ipt_named) => boolean): ipt_named | null {
  for (let at = head.next; at !== head.addr; at = list_next(at)) {
    const n = NAMED.container_of('list', at)
    if (f(n)) return n
  }
  return null
}

function text_of(n: ipt_named): string {
  return words_text(i32.subarray(n.name >> 2, (n.name >> 2) + NAME_WORDS))
}

/** named_add - the first use of one whose name is the `words` words at word `w`. @locks the registry's is held */
export function named_add(head: list_head, n: ipt_named, w: number, words: number): void {
  n.use = 1
  i32.fill(0, n.name >> 2, (n.name >> 2) + NAME_WORDS)
  i32.copyWithin(n.name >> 2, w, w + words)
  list_add_tail(n.list, head)
}
/** named_get - the one of that name, with a use more, or null. @locks the registry's is held */
export function named_get(head: list_head, w: number, words: number): ipt_named | null {
  const name = words_text(i32.subarray(w, w + words))
  const n = named_each(head, other => text_of(other) === name)
  if (n !== null) n.use++
  return n
}
/** named_put - @locks the registry's is held @returns true: it was the last use, and nobody finds it any more */
export function named_put(n: ipt_named): boolean {
  if (--n.use > 0) return false
  list_del_init(n.list)
  return true
}

/** name_ok - the words of a name end, and it is not empty. */
export function name_ok(w: number, words: number): boolean {
  return i32[w] !== 0 && words_text(i32.subarray(w, w + words)).length < words * 4
}

// ---- /proc ------------------------------------------------------------------------------------------------------------

/** named_names - @locks r.lock */
export function named_names(r: named_registry): string[] {
  const names: string[] = []
  if (r.alive === 0) return names
  spin_lock_bh(r.lock)
  named_each(r.tables, n => {
    names.push(text_of(n))
    return false
  })
  spin_unlock_bh(r.lock)
  return names
}
/** named_show - what `show` says of the one of that name, null: there is none. @locks r.lock */
export function named_show(r: named_registry, name: string, show: (n: ipt_named) => string): string | null {
  if (r.alive === 0) return null
  spin_lock_bh(r.lock)
  const n = named_each(r.tables, other => text_of(other) === name)
  const text = n === null ? null : show(n)
  spin_unlock_bh(r.lock)
  return text
}
