/**
 * fasync.ts - who is told by a signal that a file has something (fs/fcntl.c of 2.6.11): the owner of the file, and the lists of
 * files that tell theirs. There are no signals that queue, so no siginfo goes with it.
 *
 * Lock charter
 *   fown.lock guards the owner; taken for reading in any context but hardirq, for writing with interrupts off. Under it:
 *   tasklist_lock.
 *   fasync_lock guards the lists of fasync_helper; the list of a socket is guarded by its sk_callback_lock. Under either:
 *   fown.lock.
 */
import { atomic, by, embed, konst, type Layout, layout, Struct, word } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { load, store } from '../arch/atomic.js'
import { ENOMEM } from '../lib/errno.js'
import { MAX_FASYNC } from '../lib/limits.js'
import { for_programs, kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../mm/slab.js'
import {
  RWLOCK,
  read_lock,
  read_unlock,
  rwlock_init,
  type rwlock_t,
  write_lock_irqsave,
  write_unlock_irqrestore,
} from '../sync/rwlock.js'
import { current } from './sched.js'
import { for_each_process, SIGIO, SIGURG, send_sig } from './signal.js'
import type { task_struct } from './task.js'

export class fown_struct extends Struct {
  declare lock: rwlock_t
  declare pid: number
  declare uid: number
  declare signum: number
}
/** Lies in a file. */
export const FOWN: Layout<fown_struct> = layout('fown_struct', fown_struct, {
  lock: embed(RWLOCK),
  pid: atomic(word), // written under the lock; who is told: a process, -n: process group n, 0: nobody
  uid: by('lock', word), // who said so
  signum: atomic(word), // of F_SETSIG, 0: SIGIO
})

class fasync_struct extends Struct {
  declare fa_fd: number
  declare fa_next: number
  declare fa_owner: number
}
const FASYNC: Layout<fasync_struct> = layout('fasync_struct', fasync_struct, {
  fa_fd: by('fasync_lock', word),
  fa_next: by('fasync_lock', word),
  fa_owner: konst(word), // address of the file's fown_struct: what a file is known by here
})
const fasync_cache = kmem_cache_create('fasync_cache', FASYNC, () => for_programs(MAX_FASYNC))

class fasync_lock_t extends Struct {
  declare lock: rwlock_t
}
const LOCK: Layout<fasync_lock_t> = layout('fasync_lock', fasync_lock_t, { lock: embed(RWLOCK) })
const fasync = DEFINE_STATIC('fasync_lock', LOCK)

// ---- the owner ------------------------------------------------------------------------------------------------------

/** fown_init - of a file that is new: nobody is told. */
export function fown_init(fown: fown_struct): void {
  rwlock_init(fown.lock)
  fown.pid = 0
  fown.uid = 0
  fown.signum = 0
}
/** f_setown - in the name of the current task; `pid` as F_SETOWN has it. @context process @locks fown.lock */
export function f_setown(fown: fown_struct, pid: number): void {
  const flags = write_lock_irqsave(fown.lock)
  fown.pid = pid
  fown.uid = current().uid
  write_unlock_irqrestore(fown.lock, flags)
}

// ---- the lists ------------------------------------------------------------------------------------------------------

/** fasync_alloc - an entry for fasync_link. @returns its address, 0: no memory */
export function fasync_alloc(): number {
  return kmem_cache_alloc(fasync_cache)?.addr ?? 0
}
/** fasync_free - @consumes an entry, or 0 */
export function fasync_free(entry: number): void {
  if (entry !== 0) kmem_cache_free(fasync_cache, FASYNC.ref(entry))
}

/**
 * fasync_link - put a file on a list, or change the descriptor that it is known by there. @locks the list's
 * @param entry from fasync_alloc @consumes entry, if it returns 0 @returns what is to be freed when the lock is dropped
 */
export function fasync_link(list: number, entry: number, fown: fown_struct, fd: number): number {
  for (let at = load(list); at !== 0; at = FASYNC.ref(at).fa_next) {
    const fa = FASYNC.ref(at)
    if (fa.fa_owner !== fown.addr) continue
    fa.fa_fd = fd
    return entry
  }
  const fa = FASYNC.ref(entry)
  fa.fa_owner = fown.addr
  fa.fa_fd = fd
  fa.fa_next = load(list)
  store(list, entry)
  return 0
}
/** fasync_unlink - take a file off a list. @locks the list's @returns what is to be freed, 0: it was not on it */
export function fasync_unlink(list: number, fown: fown_struct): number {
  let before: fasync_struct | null = null
  for (let at = load(list); at !== 0; at = FASYNC.ref(at).fa_next) {
    const fa = FASYNC.ref(at)
    if (fa.fa_owner === fown.addr) {
      if (before === null) store(list, fa.fa_next)
      else before.fa_next = fa.fa_next
      return at
    }
    before = fa
  }
  return 0
}

/**
 * fasync_helper - a file is on this list from now on, or no more. @context process @locks fasync_lock
 * @param list address of the word that leads to the first one @returns 0, -ENOMEM
 */
export function fasync_helper(list: number, fown: fown_struct, fd: number, on: boolean): number {
  const entry = on ? fasync_alloc() : 0
  if (on && entry === 0) return -ENOMEM
  const flags = write_lock_irqsave(fasync.lock)
  const left = on ? fasync_link(list, entry, fown, fd) : fasync_unlink(list, fown)
  write_unlock_irqrestore(fasync.lock, flags)
  fasync_free(left)
  return 0
}

// ---- telling --------------------------------------------------------------------------------------------------------

/** May who set the owner send him signals? */
function sigio_perm(p: task_struct, uid: number): boolean {
  return uid === 0 || uid === p.uid
}

/** send_sigio - the owner is told. @context process, softirq @locks fown.lock, tasklist_lock, siglock */
export function send_sigio(fown: fown_struct): void {
  read_lock(fown.lock)
  const { pid, uid, signum } = fown
  if (pid !== 0) {
    for_each_process(p => {
      if (p.pid === Math.abs(pid) && sigio_perm(p, uid)) send_sig(signum === 0 ? SIGIO : signum, p)
    })
  }
  read_unlock(fown.lock)
}

/** __kill_fasync - all files of a list tell their owners. SIGURG goes by another way. @locks the list's */
export function __kill_fasync(list: number, sig: number): void {
  for (let at = load(list); at !== 0; at = FASYNC.ref(at).fa_next) {
    const fown = FOWN.ref(FASYNC.ref(at).fa_owner)
    if (sig !== SIGURG || fown.signum !== 0) send_sigio(fown)
  }
}
/** kill_fasync - the same for a list of fasync_helper; usually it is empty. @context process, softirq @locks fasync_lock */
export function kill_fasync(list: number, sig: number): void {
  if (load(list) === 0) return
  read_lock(fasync.lock)
  __kill_fasync(list, sig)
  read_unlock(fasync.lock)
}

/** fasync_init - @context boot, CPU 0 */
export function fasync_init(): void {
  rwlock_init(fasync.lock)
}
