/**
 * notifier.ts - notifier chains: blocks by falling priority, any of which may stop the call.
 *
 * Lock charter
 *   A chain's lock guards its links. The call walks without it, as in 2.6.11: a chain that can change while it is called
 *   is protected by its user (rtnl for the network's).
 */
import { by, embed, type Layout, layout, ptr, Struct, word } from '../abi/layout.js'
import { call, type Sym } from '../abi/symbol.js'
import { ENOENT } from '../lib/errno.js'
import { RWLOCK, rwlock_init, type rwlock_t, write_lock_bh, write_unlock_bh } from '../sync/rwlock.js'

export const NOTIFY_DONE = 0
export const NOTIFY_OK = 1
export const NOTIFY_STOP_MASK = 0x8000
export const NOTIFY_BAD = NOTIFY_STOP_MASK | 2
export const NOTIFY_STOP = NOTIFY_OK | NOTIFY_STOP_MASK

export type notifier_fn = (nb: notifier_block, event: number, data: number) => number

export class notifier_block extends Struct {
  declare call: Sym<notifier_fn>
  declare next: notifier_block | null
  declare priority: number
}
export const NOTIFIER: Layout<notifier_block> = layout('notifier_block', notifier_block, {
  call: word,
  next: by(
    'chain.lock',
    ptr(() => NOTIFIER),
  ),
  priority: word,
})

export class notifier_head extends Struct {
  declare first: notifier_block | null
  declare lock: rwlock_t
}
/** A chain; its owner initialises it at boot. */
export const NOTIFIER_HEAD: Layout<notifier_head> = layout('notifier_head', notifier_head, {
  first: by(
    'lock',
    ptr(() => NOTIFIER),
  ),
  lock: embed(RWLOCK),
})

/** notifier_head_init - @context boot, CPU 0 */
export function notifier_head_init(head: notifier_head): void {
  head.first = null
  rwlock_init(head.lock)
}

/** notifier_chain_register - @context process, boot @locks head.lock */
export function notifier_chain_register(head: notifier_head, nb: notifier_block): number {
  write_lock_bh(head.lock)
  let before: notifier_block | null = null
  let at = head.first
  while (at !== null && at.priority >= nb.priority) {
    before = at
    at = at.next
  }
  nb.next = at
  if (before === null) head.first = nb
  else before.next = nb
  write_unlock_bh(head.lock)
  return 0
}

/** notifier_chain_unregister - @returns 0, or -ENOENT */
export function notifier_chain_unregister(head: notifier_head, nb: notifier_block): number {
  write_lock_bh(head.lock)
  let before: notifier_block | null = null
  let at: notifier_block | null = head.first
  while (at !== null && at.addr !== nb.addr) {
    before = at
    at = at.next
  }
  if (at !== null) {
    if (before === null) head.first = at.next
    else before.next = at.next
  }
  write_unlock_bh(head.lock)
  return at === null ? -ENOENT : 0
}

/** notifier_call_chain - tell everybody, until one says stop. @returns what the last one said */
export function notifier_call_chain(head: notifier_head, event: number, data: number): number {
  let ret = NOTIFY_DONE
  for (let nb = head.first; nb !== null; ) {
    const next: notifier_block | null = nb.next
    ret = call(nb.call)(nb, event, data)
    if ((ret & NOTIFY_STOP_MASK) !== 0) break
    nb = next
  }
  return ret
}
