/** types.ts - what a socket of AF_UNIX has behind the sock, and its addresses; no behaviour. */
import { atomic, by, embed, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { WAIT_QUEUE_HEAD, type wait_queue_head_t } from '../../sched/wait.js'
import { RWLOCK, type rwlock_t } from '../../sync/rwlock.js'
import { attach_sock } from '../core/sock.js'
import { SOCK, type sock } from '../core/sock_types.js'

export const SOCKADDR_UN_SIZE = 110
/** Bytes of an address in front of its name. */
export const SUN_PATH = 2

export class unix_sock extends Struct {
  declare sk: sock
  declare lock: rwlock_t
  declare peer: number
  declare name: number
  declare namelen: number
  declare peer_wait: wait_queue_head_t
  declare inflight: number
  declare gc_mark: number
}
export const UNIX_SOCK: Layout<unix_sock> = layout('unix_sock', unix_sock, {
  sk: embed(SOCK),
  lock: embed(RWLOCK),
  peer: atomic(word), // address of the sock it is connected to, with a reference; 0: none. Changed under the lock
  name: atomic(word), // address of its sun_path (kmalloc), 0: none; it never changes once it is there
  namelen: by('unix_table_lock', word), // bytes of that
  peer_wait: embed(WAIT_QUEUE_HEAD), // of those who find its queue full
  inflight: by('unix_gc.lock', word), // times that its file lies in a message that is queued somewhere
  gc_mark: by('unix_gc.lock', word),
})
attach_sock(UNIX_SOCK)

/** unix_sk - the same socket as a unix_sock. */
export function unix_sk(sk: sock): unix_sock {
  return UNIX_SOCK.ref(sk.addr)
}

export class ucred extends Struct {
  declare pid: number
  declare uid: number
  declare gid: number
  declare fp: number
}
/** UNIXCB: who sent a message, and the files in it, in skb.cb. */
export const UCRED: Layout<ucred> = layout('ucred', ucred, {
  pid: own(word),
  uid: own(word),
  gid: own(word),
  fp: own(word), // address of an scm_fp_list (kmalloc): a count, then addresses of files; 0: none
})
