/** eventpoll_types.ts - epoll (fs/eventpoll.c of 2.6.11): its structs; no behaviour. Locks: eventpoll.ts. */
import { atomic, by, bytes, embed, konst, type Layout, layout, ptr, Struct, word } from '../abi/layout.js'
import { LIST, type list_head } from '../abi/list.js'
import { RW_SEMAPHORE, type rw_semaphore } from '../sched/rwsem.js'
import { WAIT, WAIT_QUEUE_HEAD, type wait_queue_head_t, type wait_queue_t } from '../sched/wait.js'
import { RWLOCK, type rwlock_t } from '../sync/rwlock.js'
import { FILE, type file } from './file.js'

/** The order of a list of items by file: 2.6.11 has a red-black tree. */
export const EP_BUCKETS = 64

/** What a file of epoll_create is. */
export class eventpoll extends Struct {
  declare lock: rwlock_t
  declare sem: rw_semaphore
  declare wq: wait_queue_head_t
  declare poll_wait: wait_queue_head_t
  declare rdllist: list_head
  declare buckets: number
}
export const EVENTPOLL: Layout<eventpoll> = layout('eventpoll', eventpoll, {
  lock: embed(RWLOCK),
  sem: embed(RW_SEMAPHORE),
  wq: embed(WAIT_QUEUE_HEAD), // who sleeps in epoll_wait
  poll_wait: embed(WAIT_QUEUE_HEAD), // who waits for this file by poll, select or another epoll
  rdllist: by('lock', embed(LIST)), // items that may have something
  buckets: by('sem', bytes(EP_BUCKETS * 4)), // all items, by file and descriptor
})

/** A file that is watched, by the descriptor that it was named by. */
export class epitem extends Struct {
  declare rdllink: list_head
  declare txlink: list_head
  declare pwqlist: list_head
  declare fllink: list_head
  declare ep: eventpoll | null
  declare next: number
  declare linked: number
  declare file: file | null
  declare fd: number
  declare nwait: number
  declare events: number
  declare data_lo: number
  declare data_hi: number
  declare revents: number
}
export const EPITEM: Layout<epitem> = layout('epitem', epitem, {
  rdllink: by('ep.lock', embed(LIST)),
  txlink: by('ep.lock', embed(LIST)), // of the call that hands it out
  pwqlist: by('ep.sem', embed(LIST)), // the queues of the file that it is on
  fllink: by('file.f_ep_lock', embed(LIST)),
  ep: konst(ptr(() => EVENTPOLL)),
  next: by('ep.sem', word), // in its bucket
  linked: by('ep.lock', word), // it is one of ep's items
  file: konst(ptr(() => FILE)), // without a reference: a file that goes takes its items along
  fd: konst(word),
  nwait: by('ep.sem', word), // entries of pwqlist, -1: some queue could not be entered
  events: atomic(word), // what is asked for; 0 but for EP_PRIVATE_BITS: nothing, for now
  data_lo: by('ep.sem', word), // the program's
  data_hi: by('ep.sem', word),
  revents: by('ep.sem', word), // of the call that hands it out
})

/** An item on one wait queue of its file. */
export class eppoll_entry extends Struct {
  declare llink: list_head
  declare base: epitem | null
  declare wait: wait_queue_t
  declare whead: wait_queue_head_t | null
}
export const EPPOLL_ENTRY: Layout<eppoll_entry> = layout('eppoll_entry', eppoll_entry, {
  llink: by('ep.sem', embed(LIST)),
  base: konst(ptr(() => EPITEM)),
  wait: embed(WAIT),
  whead: konst(ptr(() => WAIT_QUEUE_HEAD)),
})
