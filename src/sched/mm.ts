/**
 * mm.ts - the memory of a process: one area of RAM that it sees at USER_BASE, and nothing else. Programs name addresses of
 * their own; the kernel gets at them through the copies of this file only, which say what could not be reached.
 *
 * Lock charter
 *   mm_users counts the tasks that share an area, atomically; the last one frees it. What lies in the area is the
 *   program's own affair.
 */
import { atomic, konst, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import type { Sym } from '../abi/symbol.js'
import { config } from '../arch/machine.js'
import { memcpy, memzero, RAM } from '../arch/ram.js'
import { EFAULT } from '../lib/errno.js'
import { MAX_TASKS, USER_MEM_SIZE } from '../lib/limits.js'
import {
  kmem_alloc_addr,
  type kmem_cache,
  kmem_cache_alloc,
  kmem_cache_create,
  kmem_cache_free,
  kmem_free_addr,
} from '../mm/slab.js'
import { refcount_dec_and_test, refcount_inc } from '../sync/refcount.js'
import { current } from './sched.js'
import { type Program, TASK, type task_struct } from './task.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

/** Where a program of i386 begins. Below it nothing is mapped, so a NULL pointer faults. */
export const USER_BASE = 0x08048000
/** No address of a user lies here or above. */
export const TASK_SIZE = 0xc0000000

export class mm_struct extends Struct {
  declare mm_users: number
  declare base: number
  declare brk: number
}
const MM: Layout<mm_struct> = layout('mm_struct', mm_struct, {
  mm_users: atomic(word),
  base: konst(word), // where the area lies in RAM
  brk: own(word), // bytes of it that were given out (libc's malloc)
})
const mm_cache = kmem_cache_create('mm_struct', MM, () => config('user_procs'))

class user_area extends Struct {
  declare first: number
}
const AREA: Layout<user_area> = layout('user_area', user_area, { first: word })
const area_cache = kmem_cache_create('user_memory', AREA, () => config('user_procs'), USER_MEM_SIZE)

/** What a task has on its kernel stack in C, and what others get the address of: arguments of the call that it is in. */
export class kernel_stack extends Struct {
  declare program: Sym<Program>
  declare arg: number
  declare words: number
}
const KSTACK: Layout<kernel_stack> = layout('kernel_stack', kernel_stack, {
  program: konst(word),
  arg: konst(word),
  words: own({ kind: 'bytes', size: 1024 - 8, align: 4 }),
})
const kstack_cache = kmem_cache_create('kernel_stack', KSTACK, () => Math.min(MAX_TASKS, 8 * config('user_procs')))
/** Bytes of it that calls may use. */
export const KSTACK_WORDS = 1024 - 8

/** mm_alloc - memory for a process, all zero. @context process @returns owned memory, or null */
export function mm_alloc(): mm_struct | null {
  const mm = kmem_cache_alloc(mm_cache)
  if (mm === null) return null
  const base = kmem_alloc_addr(area_cache as unknown as kmem_cache<Struct>)
  if (base === 0) {
    kmem_cache_free(mm_cache, mm)
    return null
  }
  memzero(base, USER_MEM_SIZE)
  mm.mm_users = 1
  mm.base = base
  mm.brk = 0
  return mm
}

/** mm_get - one more task shares it. */
export function mm_get(mm: mm_struct): mm_struct {
  refcount_inc(mm.addr)
  return mm
}
/** mmput - @consumes a reference; the last one gives the memory back */
export function mmput(mm: mm_struct): void {
  if (!refcount_dec_and_test(mm.addr)) return
  kmem_free_addr(area_cache as unknown as kmem_cache<Struct>, mm.base)
  kmem_cache_free(mm_cache, mm)
}
/** task_mm - of a task, or null: a kernel thread. */
export function task_mm(p: task_struct): mm_struct | null {
  return MM.at(p.mm)
}

/** kstack_alloc - @returns null: no memory */
export function kstack_alloc(program: Sym<Program>, arg: number): kernel_stack | null {
  const k = kmem_cache_alloc(kstack_cache)
  if (k === null) return null
  k.program = program
  k.arg = arg
  return k
}
export function kstack_free(k: kernel_stack): void {
  kmem_cache_free(kstack_cache, k)
}
/** task_kstack - of a task that is a process. */
export function task_kstack(p: task_struct): kernel_stack {
  return KSTACK.ref(p.kstack)
}

/** exit_mm - a task has no memory and no kernel stack any more. @context the task itself, or a halted machine */
export function exit_mm(p: task_struct): void {
  const mm = task_mm(p)
  if (mm === null) return
  mmput(mm)
  kstack_free(task_kstack(p))
  i32[p.$w + MM_FIELD] = 0
  i32[p.$w + (TASK.offset('kstack') >> 2)] = 0
}

// ---- what a user's address means ------------------------------------------------------------------------------------

const MM_FIELD = TASK.offset('mm') >> 2
const BASE_FIELD = MM.offset('base') >> 2

/** How many of `len` bytes from a user's address on are there for the current task. */
function reach(addr: number, len: number): number {
  const at = (addr >>> 0) - USER_BASE
  if (at < 0 || at >= USER_MEM_SIZE || i32[current().$w + MM_FIELD] === 0) return 0
  return Math.min(len, USER_MEM_SIZE - at)
}
/** Where such an address lies in RAM. */
function place(addr: number): number {
  return i32[(i32[current().$w + MM_FIELD] >> 2) + BASE_FIELD] + ((addr >>> 0) - USER_BASE)
}

/** access_ok - could it be an address of a user's at all? */
export function access_ok(addr: number, len: number): boolean {
  return (addr >>> 0) + (len >>> 0) <= TASK_SIZE
}

/** user_place - where `len` bytes of the current program lie in RAM, or 0: they do not. @context process */
export function user_place(addr: number, len: number): number {
  return reach(addr, len) < len || len < 0 ? 0 : place(addr)
}

/** copy_from_user - @context process @returns bytes that could not be copied */
export function copy_from_user(to: number, from: number, len: number): number {
  const n = reach(from, len)
  if (n > 0) memcpy(to, place(from), n)
  if (n < len) u8.fill(0, to + n, to + len) // as the original: nobody sees what lay there before
  return len - n
}
/** copy_to_user - @context process @returns bytes that could not be copied */
export function copy_to_user(to: number, from: number, len: number): number {
  const n = reach(to, len)
  if (n > 0) memcpy(place(to), from, n)
  return len - n
}
/** clear_user - @returns bytes that could not be cleared */
export function clear_user(to: number, len: number): number {
  const n = reach(to, len)
  if (n > 0) u8.fill(0, place(to), place(to) + n)
  return len - n
}

/** get_user - a word of the user's, or null: it is not there. Words lie as on i386. @context process */
export function get_user(addr: number): number | null {
  const at = user_place(addr, 4)
  return at === 0 ? null : dv.getInt32(at, true)
}
/** put_user - @context process @returns 0, -EFAULT */
export function put_user(value: number, addr: number): number {
  const at = user_place(addr, 4)
  if (at === 0) return -EFAULT
  dv.setInt32(at, value, true)
  return 0
}
