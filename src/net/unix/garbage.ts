/**
 * garbage.ts - files in flight (net/unix/garbage.c of 2.6.11): a socket that only a message names which nobody can receive any
 * more, since the socket that the message lies in is such a one itself, is garbage. Nobody but this collector can free it.
 *
 * Lock charter
 *   unix_gc.lock guards the list of all Unix sockets, how often each is in flight, and that a message with files comes onto a queue
 *   together with its counts. Taken under unix_sock.lock; under it: the receive queue's lock.
 *   A message leaves a queue by a receiver between unix_recv_begin and unix_recv_end; no collection runs meanwhile, or what the
 *   receiver just took would look like garbage: 2.6.11 has this hole. A collection that could not run is made up for by the last one.
 *
 * A socket is alive if its file has more references than messages; so is whatever lies in the queue of one that is alive, files in
 * messages and connections that wait to be accepted. One without a file is alive, too, unless it is such a connection: it is being
 * made.
 */
import { hlist_add_head, hlist_del_init } from '../../abi/hlist.js'
import { atomic, by, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { RAM } from '../../arch/ram.js'
import { kfree } from '../../mm/kmalloc.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../../sync/spinlock.js'
import { scm_files } from '../core/scm.js'
import { __skb_queue_tail, __skb_unlink } from '../core/skb_queue.js'
import { consume_skb } from '../core/skbuff.js'
import { AF_UNIX, SOCK, type sock, TCP_LISTEN } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { SKB, type sk_buff } from '../core/types.js'
import { UCRED, unix_sk, type unix_sock } from './types.js'

const i32 = RAM.i32

class unix_gc_state extends Struct {
  declare lock: spinlock_t
  declare first: number
  declare tot_inflight: number
  declare receiving: number
  declare wanted: number
}
const STATE: Layout<unix_gc_state> = layout('unix_gc', unix_gc_state, {
  lock: embed(SPINLOCK),
  first: by('lock', word), // list of all Unix sockets
  tot_inflight: atomic(word), // changed under the lock; a socket that closes only looks whether there are any
  receiving: by('lock', word), // receivers that are taking a message right now
  wanted: by('lock', word), // one of them kept a collection from running
})
const gc = DEFINE_STATIC('unix_gc', STATE)

/** unix_insert_socket - the collector knows it from here on. @context process */
export function unix_insert_socket(sk: sock): void {
  spin_lock(gc.lock)
  hlist_add_head(sk.sk_node, gc.addr + FIRST)
  spin_unlock(gc.lock)
}
const FIRST = STATE.offset('first')
/** unix_remove_socket - before it loses its file. @context process */
export function unix_remove_socket(sk: sock): void {
  spin_lock(gc.lock)
  hlist_del_init(sk.sk_node)
  spin_unlock(gc.lock)
}

// ---- lists of files -------------------------------------------------------------------------------------------------

/** files_of - of an scm_fp_list; 0: none. */
export function files_of(fp: number): number[] {
  return fp === 0 ? [] : Array.from({ length: i32[fp >> 2]! }, (_, k) => i32[(fp >> 2) + 1 + k]!)
}
/** scm_destroy - @consumes the list and its references. @context process */
export function* scm_destroy(fp: number): Generator<void, void, void> {
  const files = files_of(fp)
  if (fp !== 0) kfree(fp)
  for (const file of files) yield* scm_files.put(file)
}

/** @locks unix_gc.lock */
function count_inflight(fp: number, by: number): void {
  for (const file of files_of(fp)) {
    const sk = scm_files.sk_of(file)
    if (sk === 0 || SOCK.ref(sk).sk_family !== AF_UNIX) continue
    unix_sk(SOCK.ref(sk)).inflight += by
    gc.tot_inflight += by
  }
}

/** unix_queue - a message onto its receiver's queue, and its files in flight. @context process */
export function unix_queue(other: sock, skb: sk_buff): void {
  const { fp } = UCRED.ref(skb.cb)
  if (fp !== 0) spin_lock(gc.lock)
  if (fp !== 0) count_inflight(fp, 1)
  const irq = spin_lock_irqsave(other.sk_receive_queue.lock)
  __skb_queue_tail(other.sk_receive_queue, skb)
  spin_unlock_irqrestore(other.sk_receive_queue.lock, irq)
  if (fp !== 0) spin_unlock(gc.lock)
}

/** unix_detach_fds - the files of a message that is on no queue any more; 0: none. @returns owned list */
export function unix_detach_fds(skb: sk_buff): number {
  const cb = UCRED.ref(skb.cb)
  const { fp } = cb
  if (fp === 0) return 0
  cb.fp = 0
  spin_lock(gc.lock)
  count_inflight(fp, -1)
  spin_unlock(gc.lock)
  return fp
}

/** unix_free_message - one that nobody received. @context process @consumes skb */
export function* unix_free_message(skb: sk_buff): Generator<void, void, void> {
  const fp = unix_detach_fds(skb)
  consume_skb(skb)
  yield* scm_destroy(fp)
}

// ---- receiving ------------------------------------------------------------------------------------------------------

/** unix_recv_begin - a message may leave its queue: no collection until unix_recv_end. Nothing sleeps in between. */
export function unix_recv_begin(): void {
  spin_lock(gc.lock)
  gc.receiving++
  spin_unlock(gc.lock)
}
/** unix_recv_end - @context process */
export function* unix_recv_end(): Generator<void, void, void> {
  spin_lock(gc.lock)
  const due = --gc.receiving === 0 && gc.wanted !== 0
  spin_unlock(gc.lock)
  if (due) yield* unix_gc()
}

// ---- the collector --------------------------------------------------------------------------------------------------

function* all_sockets(): Generator<unix_sock, void, void> {
  for (let at = gc.first; at !== 0; at = i32[at >> 2]!) yield unix_sk(SOCK.container_of('sk_node', at) as sock)
}

/** Messages in a queue. `f` may unlink them. @locks unix_gc.lock */
function scan(sk: sock, f: (skb: sk_buff, fp: number) => void): void {
  const queue = sk.sk_receive_queue
  const irq = spin_lock_irqsave(queue.lock)
  for (let at = i32[queue.addr >> 2]!; at !== queue.addr; ) {
    const skb = SKB.ref(at)
    at = i32[at >> 2]!
    f(skb, UCRED.ref(skb.cb).fp)
  }
  spin_unlock_irqrestore(queue.lock, irq)
}

/** References of the file that a socket is behind; null: it has none. */
function open_count({ sk_socket }: sock): number | null {
  return sk_socket === null || sk_socket.file === 0 ? null : scm_files.count(sk_socket.file)
}

/** mark_and_sweep - @locks unix_gc.lock @returns messages that lie in garbage, off their queues, and out of flight */
function mark_and_sweep(): sk_buff[] {
  const stack: unix_sock[] = []
  const mark = (u: unix_sock): void => {
    if (u.gc_mark !== 0) return
    u.gc_mark = 1
    stack.push(u)
  }
  const embrions = new Set<number>()
  for (const u of all_sockets()) {
    u.gc_mark = 0
    if (u.sk.sk_state === TCP_LISTEN) scan(u.sk, skb => embrions.add(skb.sk))
  }
  for (const u of all_sockets()) {
    const count = open_count(u.sk)
    if (count === null ? !embrions.has(u.addr) : count > u.inflight) mark(u)
  }
  for (let u = stack.pop(); u !== undefined; u = stack.pop()) {
    const listens = u.sk.sk_state === TCP_LISTEN
    scan(u.sk, (skb, fp) => {
      if (listens) mark(unix_sk(SOCK.ref(skb.sk)))
      for (const file of files_of(fp)) {
        const sk = scm_files.sk_of(file)
        if (sk !== 0 && SOCK.ref(sk).sk_family === AF_UNIX) mark(unix_sk(SOCK.ref(sk)))
      }
    })
  }
  const hitlist: sk_buff[] = []
  for (const u of all_sockets()) {
    if (u.gc_mark !== 0) continue
    scan(u.sk, (skb, fp) => {
      if (fp === 0) return
      __skb_unlink(skb, u.sk.sk_receive_queue)
      hitlist.push(skb)
    })
  }
  return hitlist
}

/** unix_gc - free the sockets that only lie in each other's queues. @context process */
export function* unix_gc(): Call {
  spin_lock(gc.lock)
  gc.wanted = gc.receiving > 0 ? 1 : 0
  const hitlist = gc.wanted === 0 && gc.tot_inflight > 0 ? mark_and_sweep() : []
  spin_unlock(gc.lock)
  for (const skb of hitlist) yield* unix_free_message(skb)
  return hitlist.length
}

/** unix_tot_inflight - sockets that lie in messages, each as often as it does. */
export function unix_tot_inflight(): number {
  return gc.tot_inflight
}
/** unix_files_in_flight - all files in messages, each as often as it is in one. @context a halted machine */
export function unix_files_in_flight(): number[] {
  const files: number[] = []
  for (const u of all_sockets()) scan(u.sk, (_skb, fp) => files.push(...files_of(fp)))
  return files
}

/** unix_gc_init - @context boot, CPU 0 */
export function unix_gc_init(): void {
  spin_lock_init(gc.lock)
}
