/**
 * nl_table.ts - who has which netlink address, and who listens to which groups.
 *
 * Lock charter
 *   nl_table_lock (rwlock, bottom halves off) guards the hash by pid, the lists of multicast listeners, and pid and groups of
 *   each socket. Who walks a list for longer counts himself into nl_table_users instead (netlink_lock_table): a writer takes
 *   the lock, and sleeps until the count is 0 (netlink_table_grab). So a broadcast may sleep, and a list never changes below it.
 *   Nothing of a socket is called under the lock.
 */
import { hlist_add_head, hlist_del_init, hlist_unhashed } from '../../abi/hlist.js'
import { atomic, by, bytes, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { fetch_add, load } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { EADDRINUSE, EBUSY, ECONNREFUSED } from '../../lib/errno.js'
import { current, schedule } from '../../sched/sched.js'
import { TASK_UNINTERRUPTIBLE } from '../../sched/task.js'
import {
  begin_wait,
  finish_wait,
  init_waitqueue_head,
  prepare_to_wait,
  WAIT_QUEUE_HEAD,
  WQ_FLAG_EXCLUSIVE,
  type wait_queue_head_t,
  wake_up,
} from '../../sched/wait.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { sock_hold, sock_put } from '../core/sock.js'
import { SOCK, type sock } from '../core/sock_types.js'
import { MAX_LINKS, NETLINK_CONNECTED, type netlink_sock, nlk_sk } from './types.js'

const i32 = RAM.i32

/** Buckets of the hash of one protocol. */
const PID_HASH = 64

class nl_tables extends Struct {
  declare lock: rwlock_t
  declare users: number
  declare listeners: number
  declare rover: number
  declare wait: wait_queue_head_t
  declare mc_list: number
  declare hash: number
}
const TABLES: Layout<nl_tables> = layout('nl_table', nl_tables, {
  lock: embed(RWLOCK),
  users: atomic(word), // who walks a list without the lock
  listeners: atomic(word), // sockets on any of the lists; changed under the lock
  rover: by('lock', word), // the last address that was given out because a pid was taken
  wait: embed(WAIT_QUEUE_HEAD), // writers that wait for them
  mc_list: by('lock', bytes(MAX_LINKS * 4)),
  hash: by('lock', bytes(MAX_LINKS * PID_HASH * 4)),
})
const nl_table = DEFINE_STATIC('nl_table', TABLES)
const USERS = nl_table.addr + TABLES.offset('users')
const LISTENERS = nl_table.addr + TABLES.offset('listeners')
const BIND_NODE = SOCK.offset('sk_bind_node')
const NODE = SOCK.offset('sk_node')

/** netlink_table_grab - to change the table, when nobody walks it. @context process @locks nl_table_lock, held on return */
export function* netlink_table_grab(): Generator<void, void, void> {
  write_lock_bh(nl_table.lock)
  if (load(USERS) === 0) return
  const wait = begin_wait(WQ_FLAG_EXCLUSIVE)
  for (;;) {
    if (wait !== null) prepare_to_wait(nl_table.wait, wait, TASK_UNINTERRUPTIBLE)
    if (load(USERS) === 0) break
    write_unlock_bh(nl_table.lock)
    yield* schedule()
    write_lock_bh(nl_table.lock)
  }
  if (wait !== null) finish_wait(nl_table.wait, wait)
}
export function netlink_table_ungrab(): void {
  write_unlock_bh(nl_table.lock)
  wake_up(nl_table.wait)
}

/** netlink_lock_table - the lists stay as they are until netlink_unlock_table. @context any but hardirq */
export function netlink_lock_table(): void {
  read_lock_bh(nl_table.lock)
  fetch_add(USERS, 1)
  read_unlock_bh(nl_table.lock)
}
export function netlink_unlock_table(): void {
  if (fetch_add(USERS, -1) === 1) wake_up(nl_table.wait)
}

function bucket(protocol: number, pid: number): number {
  const h = pid ^ (pid >>> 7) ^ (pid >>> 14)
  return nl_table.hash + (protocol * PID_HASH + (h & (PID_HASH - 1))) * 4
}
function find(protocol: number, pid: number): sock | null {
  for (let at = i32[bucket(protocol, pid) >> 2]; at !== 0; at = i32[at >> 2]) {
    const sk = SOCK.ref(at - NODE)
    if (nlk_sk(sk).pid === pid) return sk
  }
  return null
}

/** netlink_lookup - who has an address. @returns a socket with one more reference, or null */
export function netlink_lookup(protocol: number, pid: number): sock | null {
  read_lock_bh(nl_table.lock)
  const sk = find(protocol, pid)
  if (sk !== null) sock_hold(sk)
  read_unlock_bh(nl_table.lock)
  return sk
}

/** netlink_getsockbypid - who a message of `ssk` goes to. @returns address of a socket with one more reference, -ECONNREFUSED */
export function netlink_getsockbypid(ssk: sock, pid: number): number {
  const sk = netlink_lookup(ssk.sk_protocol, pid)
  if (sk === null) return -ECONNREFUSED
  const nlk = nlk_sk(sk)
  const deaf = nlk.pid === 0 && nlk.data_ready === 0 // a kernel's end that only speaks
  if (!deaf && (sk.sk_state !== NETLINK_CONNECTED || nlk.dst_pid === nlk_sk(ssk).pid)) return sk.addr
  sock_put(sk)
  return -ECONNREFUSED
}

/** netlink_insert - the socket gets an address. @context process @locks nl_table_lock @returns 0, -EADDRINUSE, -EBUSY: it has one */
export function* netlink_insert(sk: sock, pid: number): Generator<void, number, void> {
  yield* netlink_table_grab()
  const err = insert_locked(sk, pid)
  netlink_table_ungrab()
  return err
}
function insert_locked(sk: sock, pid: number): number {
  if (find(sk.sk_protocol, pid) !== null) return -EADDRINUSE
  if (nlk_sk(sk).pid !== 0) return -EBUSY
  nlk_sk(sk).pid = pid
  sock_hold(sk)
  hlist_add_head(sk.sk_node, bucket(sk.sk_protocol, pid))
  return 0
}

/** netlink_insert_kernel - address 0. @context boot @returns 0, -EADDRINUSE */
export function netlink_insert_kernel(sk: sock): number {
  write_lock_bh(nl_table.lock)
  const err = insert_locked(sk, 0)
  write_unlock_bh(nl_table.lock)
  return err
}

/** netlink_autobind - the process's pid as address, or a negative one that is free. @context process @returns 0, -EBUSY */
export function* netlink_autobind(sk: sock): Generator<void, number, void> {
  yield* netlink_table_grab()
  let { pid } = current()
  while (find(sk.sk_protocol, pid) !== null) {
    pid = nl_table.rover
    nl_table.rover = pid === -0x80000000 ? -4097 : pid - 1
  }
  const err = insert_locked(sk, pid)
  netlink_table_ungrab()
  return err === -EBUSY ? 0 : err // another thread was faster
}

/** netlink_remove - no new message finds the socket. @context process @locks nl_table_lock */
export function* netlink_remove(sk: sock): Generator<void, void, void> {
  yield* netlink_table_grab()
  remove_locked(sk)
  netlink_table_ungrab()
}
/** Off its list of listeners, if it is on one. @locks nl_table_lock is held for writing */
function unlisten(sk: sock): void {
  if (hlist_unhashed(sk.sk_bind_node)) return
  hlist_del_init(sk.sk_bind_node)
  fetch_add(LISTENERS, -1)
}
function remove_locked(sk: sock): void {
  unlisten(sk)
  if (hlist_unhashed(sk.sk_node)) return
  hlist_del_init(sk.sk_node)
  sock_put(sk)
}

/** netlink_set_groups - listen to these groups and no others. @context process @locks nl_table_lock */
export function* netlink_set_groups(sk: sock, groups: number): Generator<void, void, void> {
  const nlk = nlk_sk(sk)
  yield* netlink_table_grab()
  if (nlk.groups !== 0 && groups === 0) unlisten(sk)
  else if (nlk.groups === 0 && groups !== 0) {
    hlist_add_head(sk.sk_bind_node, nl_table.mc_list + sk.sk_protocol * 4)
    fetch_add(LISTENERS, 1)
  }
  nlk.groups = groups
  netlink_table_ungrab()
}

/** netlink_listeners - everybody who listens to any group. @locks the table is locked (netlink_lock_table) */
export function netlink_listeners(protocol: number, each: (sk: sock, nlk: netlink_sock) => void): void {
  let at = i32[(nl_table.mc_list >> 2) + protocol]
  while (at !== 0) {
    const next = i32[at >> 2]
    const sk = SOCK.ref(at - BIND_NODE)
    each(sk, nlk_sk(sk))
    at = next
  }
}

/** netlink_has_listeners - does anybody listen to any group? A hint: who comes at the same time may miss a message. */
export function netlink_has_listeners(): boolean {
  return load(LISTENERS) !== 0
}

/** nl_table_init - @context boot, CPU 0 */
export function nl_table_init(): void {
  rwlock_init(nl_table.lock)
  init_waitqueue_head(nl_table.wait)
  nl_table.users = 0
  nl_table.listeners = 0
  nl_table.rover = -4097
  i32.fill(0, nl_table.mc_list >> 2, (nl_table.mc_list >> 2) + MAX_LINKS)
  i32.fill(0, nl_table.hash >> 2, (nl_table.hash >> 2) + MAX_LINKS * PID_HASH)
}

/** netlink_remove_kernel - no new message finds the kernel's end. @context process, or a halted machine @locks nl_table_lock */
export function netlink_remove_kernel(sk: sock): void {
  write_lock_bh(nl_table.lock)
  remove_locked(sk)
  write_unlock_bh(nl_table.lock)
}
