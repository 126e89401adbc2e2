/**
 * file.ts - descriptors: a process's table of open files, and the files themselves.
 *
 * Lock charter
 *   files_struct.file_lock guards the table and its two bit maps. Nothing is called under it.
 *   f_count counts the table entries of a file and the calls that are under way with it; who drops the last one releases the
 *   file, which may sleep. A descriptor is reserved first (get_unused_fd) and filled later (fd_install): in between it is as
 *   good as closed.
 */
import { atomic, by, bytes, embed, konst, type Layout, layout, Struct, word } from '../abi/layout.js'
import { INIT_LIST_HEAD, LIST, type list_head } from '../abi/list.js'
import { call, type Sym } from '../abi/symbol.js'
import { load } from '../arch/atomic.js'
import { RAM } from '../arch/ram.js'
import { EBADF, EMFILE } from '../lib/errno.js'
import { MAX_FILES, MAX_TASKS, NR_OPEN } from '../lib/limits.js'
import { type kmem_cache, kmem_cache_alloc, kmem_cache_create, kmem_cache_free, objects_out } from '../mm/slab.js'
import { FOWN, fown_init, type fown_struct } from '../sched/fasync.js'
import type { poll_table } from '../sched/poll.js'
import { all_tasks, current } from '../sched/sched.js'
import { TASK, type task_struct } from '../sched/task.js'
import { refcount_dec_and_test, refcount_inc } from '../sync/refcount.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../sync/spinlock.js'

const i32 = RAM.i32

export class file extends Struct {
  declare f_count: number
  declare f_flags: number
  declare f_op: Sym<file_operations>
  declare private_data: number
  declare f_version: number
  declare f_owner: fown_struct
  declare f_ep_lock: spinlock_t
  declare f_ep_links: list_head
  declare f_ep_watched: number
}
export const FILE: Layout<file> = layout('file', file, {
  f_count: atomic(word), // 0: it is being opened, or released
  f_flags: word, // O_*; changed by fcntl, a word at a time
  f_op: konst(word),
  private_data: konst(word), // address of the socket, or of what else it is
  f_version: word, // of a FIFO: how many writers there had been when it was opened without one
  f_owner: embed(FOWN), // who gets SIGIO
  f_ep_lock: embed(SPINLOCK),
  f_ep_links: by('f_ep_lock', embed(LIST)), // the items of epoll that watch it
  f_ep_watched: atomic(word), // there was such an item once
})

/** The pieces of the program's memory that readv and writev are about. */
export type uvector = readonly (readonly [base: number, len: number])[]

/** What can be done with a file of this kind. `buf` and `arg` are the user's. */
export interface file_operations {
  read(filp: file, buf: number, count: number): Generator<void, number, void>
  write(filp: file, buf: number, count: number): Generator<void, number, void>
  readv(filp: file, iov: uvector, total: number): Generator<void, number, void>
  writev(filp: file, iov: uvector, total: number): Generator<void, number, void>
  ioctl(filp: file, cmd: number, arg: number): Generator<void, number, void>
  /** What it has, after it entered the table at its queues; a file without this is always ready. */
  poll?(filp: file, pt: poll_table | null): number
  /** Tell the owner by a signal from now on, or no more. `fd`: by which descriptor. Without this: never. @returns 0, -errno */
  fasync?(fd: number, filp: file, on: boolean): Generator<void, number, void>
  /** Its release may begin anew where a halt has cut it, or has cut the file's opening: nothing is half done while it sleeps. */
  readonly restarts?: true
  /** The last reference is gone. */
  release(filp: file): Generator<void, void, void>
}

const BITS = NR_OPEN >> 5

export class files_struct extends Struct {
  declare count: number
  declare file_lock: spinlock_t
  declare next_fd: number
  declare open_fds: number
  declare close_on_exec: number
  declare fd: number
}
const FILES: Layout<files_struct> = layout('files_struct', files_struct, {
  count: atomic(word), // tasks that share it
  file_lock: embed(SPINLOCK),
  next_fd: by('file_lock', word), // none below is free
  open_fds: by('file_lock', bytes(BITS * 4)),
  close_on_exec: by('file_lock', bytes(BITS * 4)),
  fd: by('file_lock', bytes(NR_OPEN * 4)), // addresses of files
})
const filp_cache = kmem_cache_create('filp', FILE, () => MAX_FILES)
const files_cache = kmem_cache_create('files_struct', FILES, () => MAX_TASKS >> 2)

// ---- files ----------------------------------------------------------------------------------------------------------

/** get_empty_filp - a file with one reference, or null: the machine has no more (ENFILE). */
export function get_empty_filp(f_op: Sym<file_operations>, private_data: number, f_flags: number): file | null {
  const filp = kmem_cache_alloc(filp_cache)
  if (filp === null) return null
  filp.f_count = 1
  filp.f_flags = f_flags
  filp.f_op = f_op
  filp.private_data = private_data
  filp.f_version = 0
  fown_init(filp.f_owner)
  spin_lock_init(filp.f_ep_lock)
  INIT_LIST_HEAD(filp.f_ep_links)
  filp.f_ep_watched = 0
  return filp
}
/** can_read - was it opened for that (FMODE_READ)? */
export function can_read(filp: file): boolean {
  return ((filp.f_flags + 1) & 1) !== 0
}
export function can_write(filp: file): boolean {
  return ((filp.f_flags + 1) & 2) !== 0
}
export function get_file(filp: file): void {
  refcount_inc(filp.addr)
}
/** file_op - what this file can do. */
export function file_op(filp: file): file_operations {
  return call(filp.f_op)
}

/** fput - @context process @consumes a reference; the last one releases the file */
export function* fput(filp: file): Generator<void, void, void> {
  if (fput_test(filp)) yield* __fput(filp)
}
/** fput_test - fput without a generator; true: it was the last, and __fput is to follow. */
export function fput_test(filp: file): boolean {
  return refcount_dec_and_test(filp.addr)
}
/** What other files of this floor want to know: filled at module load. */
export const file_hooks = {
  /** A file goes that epoll has watched. */
  eventpoll_release: function* (_filp: file): Generator<void, void, void> {},
}
/** __fput - @consumes filp */
export function* __fput(filp: file): Generator<void, void, void> {
  if (filp.f_ep_watched !== 0) yield* file_hooks.eventpoll_release(filp)
  yield* file_op(filp).release(filp)
  kmem_cache_free(filp_cache, filp)
}

// ---- the table ------------------------------------------------------------------------------------------------------

/** current_files - of the task that is in a call. @context process */
export function current_files(): files_struct {
  return FILES.ref(current().files)
}
/** task_files - or null: a kernel thread. */
export function task_files(p: task_struct): files_struct | null {
  return FILES.at(p.files)
}

/** files_alloc - an empty table, or null. @context process @returns owned table */
export function files_alloc(): files_struct | null {
  const files = kmem_cache_alloc(files_cache)
  if (files === null) return null
  i32.fill(0, files.$w, files.$w + (FILES.size >> 2))
  spin_lock_init(files.file_lock)
  files.count = 1
  return files
}
export function files_get(files: files_struct): files_struct {
  refcount_inc(files.addr)
  return files
}
/** files_drop - a reference less of a table that is empty, or that somebody else has as well. @consumes a reference */
export function files_drop(files: files_struct): void {
  if (refcount_dec_and_test(files.addr)) kmem_cache_free(files_cache, files)
}
/** put_files_struct - @consumes a reference; the last one closes everything. @context process */
export function* put_files_struct(files: files_struct): Generator<void, void, void> {
  if (!refcount_dec_and_test(files.addr)) return
  for (let fd = 0; fd < NR_OPEN; fd++) {
    const filp = FILE.at(i32[(files.fd >> 2) + fd])
    if (filp !== null) yield* fput(filp)
  }
  kmem_cache_free(files_cache, files)
}
/** exit_files - the current task ends. @context process */
export function* exit_files(): Generator<void, void, void> {
  const p = current()
  const files = task_files(p)
  p.files = 0
  if (files !== null) yield* put_files_struct(files)
}

function is_open(map: number, fd: number): boolean {
  return (i32[(map >> 2) + (fd >> 5)] & (1 << (fd & 31))) !== 0
}
function set_bit(map: number, fd: number, on: boolean): void {
  const w = (map >> 2) + (fd >> 5)
  if (on) i32[w] |= 1 << (fd & 31)
  else i32[w] &= ~(1 << (fd & 31))
}

/** locate_fd - reserve the lowest free descriptor from `start` on. @returns it, -EMFILE */
export function locate_fd(start: number): number {
  const files = current_files()
  spin_lock(files.file_lock)
  let fd = Math.max(start, files.next_fd)
  while (fd < NR_OPEN && is_open(files.open_fds, fd)) fd++
  if (fd < NR_OPEN) {
    set_bit(files.open_fds, fd, true)
    set_bit(files.close_on_exec, fd, false)
    if (start <= files.next_fd) files.next_fd = fd + 1
  }
  spin_unlock(files.file_lock)
  return fd < NR_OPEN ? fd : -EMFILE
}
export function get_unused_fd(): number {
  return locate_fd(0)
}
/** put_unused_fd - a reserved descriptor that is not needed after all. */
export function put_unused_fd(fd: number): void {
  const files = current_files()
  spin_lock(files.file_lock)
  __put_unused_fd(files, fd)
  spin_unlock(files.file_lock)
}
function __put_unused_fd(files: files_struct, fd: number): void {
  set_bit(files.open_fds, fd, false)
  if (fd < files.next_fd) files.next_fd = fd
}
/** fd_install - from here on the reserved descriptor is this file. @consumes a reference of filp */
export function fd_install(fd: number, filp: file): void {
  const files = current_files()
  spin_lock(files.file_lock)
  i32[(files.fd >> 2) + fd] = filp.addr
  spin_unlock(files.file_lock)
}

/** fd_install_first - the lowest descriptor of a process that does not run yet. @consumes a reference of filp */
export function fd_install_first(files: files_struct, filp: file): void {
  const fd = files.next_fd++
  set_bit(files.open_fds, fd, true)
  i32[(files.fd >> 2) + fd] = filp.addr
}
/** release_unused - a file that nobody got to see, and that has nothing to release. @consumes filp */
export function release_unused(filp: file): void {
  kmem_cache_free(filp_cache, filp)
}

/** fget - the file of a descriptor, with one more reference, or null. @context process @locks file_lock */
export function fget(fd: number): file | null {
  if (fd < 0 || fd >= NR_OPEN) return null
  const files = current_files()
  spin_lock(files.file_lock)
  const filp = FILE.at(i32[(files.fd >> 2) + fd])
  if (filp !== null) get_file(filp)
  spin_unlock(files.file_lock)
  return filp
}

/** fd_is_open - or just being opened. @locks file_lock */
export function fd_is_open(fd: number): boolean {
  if (fd >= NR_OPEN) return false
  const files = current_files()
  spin_lock(files.file_lock)
  const open = is_open(files.open_fds, fd)
  spin_unlock(files.file_lock)
  return open
}

/** close_fd - take a file off the table. @returns it with the table's reference, or null: it is not open */
export function close_fd(fd: number): file | null {
  if (fd < 0 || fd >= NR_OPEN) return null
  const files = current_files()
  spin_lock(files.file_lock)
  const filp = FILE.at(i32[(files.fd >> 2) + fd])
  if (filp !== null) {
    i32[(files.fd >> 2) + fd] = 0
    set_bit(files.close_on_exec, fd, false)
    __put_unused_fd(files, fd)
  }
  spin_unlock(files.file_lock)
  return filp
}

/**
 * replace_fd - what dup2 does to the table: `newfd` is the file of `oldfd`. @returns the file that was there before, as its
 * address with the table's reference; 0: none; -EBADF; -EBUSY: it is just being opened by another thread
 */
export function replace_fd(oldfd: number, newfd: number, busy: number): number {
  if (oldfd < 0 || oldfd >= NR_OPEN) return -EBADF
  const files = current_files()
  spin_lock(files.file_lock)
  const table = files.fd >> 2
  const filp = FILE.at(i32[table + oldfd])
  const before = i32[table + newfd]
  const reserved = before === 0 && is_open(files.open_fds, newfd)
  if (filp !== null && !reserved) {
    get_file(filp)
    set_bit(files.open_fds, newfd, true)
    set_bit(files.close_on_exec, newfd, false)
    i32[table + newfd] = filp.addr
  }
  spin_unlock(files.file_lock)
  if (filp === null) return -EBADF
  return reserved ? -busy : before
}

/** get_close_on_exec - @locks file_lock */
export function get_close_on_exec(fd: number): number {
  const files = current_files()
  spin_lock(files.file_lock)
  const on = is_open(files.close_on_exec, fd)
  spin_unlock(files.file_lock)
  return on ? 1 : 0
}
export function set_close_on_exec(fd: number, on: boolean): void {
  const files = current_files()
  spin_lock(files.file_lock)
  set_bit(files.close_on_exec, fd, on)
  spin_unlock(files.file_lock)
}

// ---- for the audit --------------------------------------------------------------------------------------------------

/**
 * files_post_mortem - close what the tasks of a halted machine have open, also what they were in the middle of a call with.
 * `sent`: files that lie in messages, one entry for each time. @context a halted machine
 */
export function* files_post_mortem(sent: readonly number[]): Generator<void, void, void> {
  const tables = new Set(all_tasks().flatMap(p => (p.files === 0 ? [] : [p.files])))
  const open = [...tables].flatMap(at => {
    const fds = FILES.ref(at).fd >> 2
    return Array.from({ length: NR_OPEN }, (_, fd) => i32[fds + fd]).filter(addr => addr !== 0)
  })
  const held = [...open, ...sent]
  for (const addr of held) FILE.ref(addr).f_count = held.filter(other => other === addr).length
  for (const at of tables) {
    FILES.ref(at).count = 1
    yield* put_files_struct(FILES.ref(at))
  }
  for (const p of all_tasks()) i32[p.$w + TASK_FILES] = 0
  for (const filp of files_out()) if (filp.f_count === 0 && file_op(filp).restarts === true) yield* __fput(filp)
}
/** files_out - all files of the machine. @context a halted machine */
export function files_out(): file[] {
  return objects_out(filp_cache as unknown as kmem_cache<Struct>).map(addr => FILE.ref(addr))
}
const TASK_FILES = TASK.offset('files') >> 2
/** file_count - references. */
export function file_count(filp: file): number {
  return load(filp.addr)
}
