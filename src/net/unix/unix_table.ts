/**
 * unix_table.ts - names of AF_UNIX sockets: abstract ones, which go with their socket, and paths, which stay until they are unlinked.
 * There is no file system behind the paths, only this table; FIFOs have their names here as well (mknod).
 *
 * Lock charter
 *   unix_table_lock guards the table and which socket a name leads to. Nothing is taken under it.
 */
import { by, bytes, embed, konst, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { store } from '../../arch/atomic.js'
import { memcpy, RAM } from '../../arch/ram.js'
import {
  EACCES,
  EADDRINUSE,
  ECONNREFUSED,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOMEM,
  ENOSPC,
  ENXIO,
  EPROTOTYPE,
} from '../../lib/errno.js'
import { MAX_UNIX_NAMES } from '../../lib/limits.js'
import { kfree, kmalloc } from '../../mm/kmalloc.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { current } from '../../sched/sched.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { sock_hold } from '../core/sock.js'
import { SOCK, type sock } from '../core/sock_types.js'
import { SUN_PATH, UNIX_SOCK, unix_sk } from './types.js'

const u8 = RAM.u8
const i32 = RAM.i32
const NAME = UNIX_SOCK.offset('name')
/** Bytes of the longest name. */
export const MAX_NAME = 108

class unix_name extends Struct {
  declare next: number
  declare sk: number
  declare node: number
  declare uid: number
  declare len: number
  declare name: number
}
const UNIX_NAME: Layout<unix_name> = layout('unix_name', unix_name, {
  next: by('unix_table_lock', word),
  sk: by('unix_table_lock', word), // 0: a path whose socket is gone, or that never had one
  node: konst(word), // of a FIFO: its address, with a reference; 0: a socket
  uid: word, // who made it
  len: word,
  name: bytes(MAX_NAME),
})
const name_cache = kmem_cache_create('unix_name', UNIX_NAME, () => MAX_UNIX_NAMES)

const BUCKETS = 64
class unix_table_t extends Struct {
  declare lock: spinlock_t
  declare ordernum: number
  declare chains: number
}
const TABLE: Layout<unix_table_t> = layout('unix_table', unix_table_t, {
  lock: embed(SPINLOCK),
  ordernum: by('lock', word),
  chains: by('lock', bytes(BUCKETS * 4)),
})
const table = DEFINE_STATIC('unix_table', TABLE)

function bucket(name: number, len: number): number {
  let hash = 0
  for (let k = 0; k < len; k++) hash = (hash * 31 + u8[name + k]) | 0
  return (table.chains >> 2) + (hash & (BUCKETS - 1))
}
function same(n: unix_name, name: number, len: number): boolean {
  if (n.len !== len) return false
  for (let k = 0; k < len; k++) if (u8[n.name + k] !== u8[name + k]) return false
  return true
}
/** @locks unix_table_lock is held */
function find(name: number, len: number): unix_name | null {
  for (let at = i32[bucket(name, len)]; at !== 0; ) {
    const n = UNIX_NAME.ref(at)
    if (same(n, name, len)) return n
    at = n.next
  }
  return null
}
function unchain(n: unix_name): void {
  const head = bucket(n.name, n.len)
  if (i32[head] === n.addr) {
    i32[head] = n.next
    return
  }
  let at = i32[head]
  while (UNIX_NAME.ref(at).next !== n.addr) at = UNIX_NAME.ref(at).next
  UNIX_NAME.ref(at).next = n.next
}

/** unix_mkname - length of the name in an address of `len` bytes: a path ends with its first 0, which counts. @returns -EINVAL */
export function unix_mkname(addr: number, len: number): number {
  if (len <= SUN_PATH || len > SUN_PATH + MAX_NAME || u8[addr] !== 1 || u8[addr + 1] !== 0) return -EINVAL
  const name = addr + SUN_PATH
  if (u8[name] === 0) return len - SUN_PATH
  const end = u8.indexOf(0, name)
  return Math.min(end < 0 || end > name + len - SUN_PATH ? len - SUN_PATH : end - name, MAX_NAME - 1) + 1
}

/** A name that is free, of a socket (address of the sock) or of a node. @locks unix_table_lock is held @consumes n */
function enter_name(n: unix_name, name: number, len: number, sk: number, node: number): void {
  n.len = len
  n.uid = current().uid
  n.sk = sk
  n.node = node
  memcpy(n.name, name, len)
  const head = bucket(name, len)
  n.next = i32[head]
  i32[head] = n.addr
}
/** Enter the socket under a name that is free. @locks unix_table_lock is held @consumes own, n */
function enter(sk: sock, own: number, n: unix_name, name: number, len: number): void {
  memcpy(own, name, len)
  unix_sk(sk).namelen = len
  enter_name(n, name, len, sk.addr, 0)
  store(sk.addr + NAME, own)
}

/**
 * unix_bind_name - the socket gets this name. @context process @locks unix_table_lock
 * @returns 0, -EINVAL: it has one, -EADDRINUSE, -ENOMEM, -ENOSPC
 */
export function unix_bind_name(sk: sock, name: number, len: number): number {
  const own = kmalloc(MAX_NAME)
  const n = own === 0 ? null : kmem_cache_alloc(name_cache)
  if (n === null) {
    if (own !== 0) kfree(own)
    return own === 0 ? -ENOMEM : -ENOSPC
  }
  if (u8[name] !== 0) u8[name + len - 1] = 0
  spin_lock(table.lock)
  const err = unix_sk(sk).name !== 0 ? -EINVAL : find(name, len) !== null ? -EADDRINUSE : 0
  if (err === 0) enter(sk, own, n, name, len)
  spin_unlock(table.lock)
  if (err === 0) return 0
  kfree(own)
  kmem_cache_free(name_cache, n)
  return err
}

/** unix_autobind - an abstract name of five digits. `at`: room for an address. @context process @returns as unix_bind_name */
export function unix_autobind(sk: sock, at: number): number {
  if (unix_sk(sk).name !== 0) return 0
  for (;;) {
    spin_lock(table.lock)
    const num = table.ordernum++ & 0xfffff
    spin_unlock(table.lock)
    u8[at] = 0
    for (let k = 0; k < 5; k++) u8[at + 1 + k] = num.toString(16).padStart(5, '0').charCodeAt(k)
    const err = unix_bind_name(sk, at, 6)
    if (err === -EINVAL) return 0 // another thread was faster
    if (err !== -EADDRINUSE) return err
  }
}

/** unix_find_other - whom a name leads to. @context process @locks unix_table_lock @returns address of a referenced sock, -errno */
export function unix_find_other(name: number, len: number, type: number): number {
  const path = u8[name] !== 0
  spin_lock(table.lock)
  const n = find(name, len)
  let ret = n === null ? (path ? -ENOENT : -ECONNREFUSED) : n.sk === 0 ? -ECONNREFUSED : n.sk
  if (ret > 0 && path && n!.uid !== current().uid && current().uid !== 0) ret = -EACCES // made with the usual umask
  if (ret > 0 && SOCK.ref(ret).sk_type !== type) ret = -EPROTOTYPE
  if (ret > 0) sock_hold(SOCK.ref(ret))
  spin_unlock(table.lock)
  return ret
}

/** unix_unhash - the socket goes; an abstract name goes with it. @context process @locks unix_table_lock */
export function unix_unhash(sk: sock): void {
  const u = unix_sk(sk)
  if (u.name === 0) return
  spin_lock(table.lock)
  const n = find(u.name, u.namelen)
  const mine = n !== null && n.sk === sk.addr
  const abstract = mine && u8[n.name] === 0
  if (mine) n.sk = 0
  if (abstract) unchain(n)
  spin_unlock(table.lock)
  if (abstract) kmem_cache_free(name_cache, n)
}

/** path_exists - a hint. @locks unix_table_lock */
export function path_exists(name: number, len: number): boolean {
  spin_lock(table.lock)
  const there = find(name, len) !== null
  spin_unlock(table.lock)
  return there
}

/** path_enter - a path for a node that is no bound socket; `node`: 0, or a FIFO. @consumes node if it returns 0 @returns 0, -EEXIST, -ENOSPC */
export function path_enter(name: number, len: number, node: number): number {
  const n = kmem_cache_alloc(name_cache)
  if (n === null) return path_exists(name, len) ? -EEXIST : -ENOSPC
  spin_lock(table.lock)
  const there = find(name, len) !== null
  if (!there) enter_name(n, name, len, 0, node)
  spin_unlock(table.lock)
  if (!there) return 0
  kmem_cache_free(name_cache, n)
  return -EEXIST
}

/** path_lookup - the FIFO of a path; `get` takes a reference of it. @returns its address, -ENOENT, -ENXIO: it is a socket */
export function path_lookup(name: number, len: number, get: (node: number) => void): number {
  spin_lock(table.lock)
  const n = find(name, len)
  const node = n === null ? -ENOENT : n.node === 0 ? -ENXIO : n.node
  if (node > 0) get(node)
  spin_unlock(table.lock)
  return node
}

/**
 * unix_unlink - a path is free again; a socket that is bound to it cannot be found any more.
 * @returns 0, -ENOENT, -EACCES; address of a FIFO, whose reference is the caller's now
 */
export function unix_unlink(name: number, len: number): number {
  spin_lock(table.lock)
  const n = find(name, len)
  const mine = n !== null && (n.uid === current().uid || current().uid === 0)
  if (mine) unchain(n)
  spin_unlock(table.lock)
  if (n === null) return -ENOENT
  if (!mine) return -EACCES
  const { node } = n
  kmem_cache_free(name_cache, n)
  return node
}

/** unix_exit - paths that nobody unlinked; `put` drops the reference of a FIFO. @context a halted machine */
export function unix_exit(put: (node: number) => void): void {
  for (let k = 0; k < BUCKETS; k++) {
    const head = (table.chains >> 2) + k
    for (let at = i32[head]; at !== 0; at = i32[head]) {
      const n = UNIX_NAME.ref(at)
      i32[head] = n.next
      if (n.node !== 0) put(n.node)
      kmem_cache_free(name_cache, n)
    }
  }
}

/** unix_table_init - @context boot, CPU 0 */
export function unix_table_init(): void {
  spin_lock_init(table.lock)
}
