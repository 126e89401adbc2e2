/**
 * eventpoll.ts - epoll (fs/eventpoll.c of 2.6.11): many files are watched, and only those are looked at that have had something.
 *
 * Lock charter, in the order in which they are taken
 *   epsem       a watched file that goes against an epoll file that goes: each takes the other's items away.
 *   ep.sem      the items of one epoll file: for writing to add, change and remove them, for reading to hand out what they have.
 *               Files are asked (poll) and the program's memory is written with it held, since neither sleeps.
 *   ep.lock     the ready list and the links of items; taken with interrupts off, since wake-ups in any context put items on
 *               the list. Under it: wq.lock, and with it rq.lock. It is taken under the lock of the wait queue that wakes, so
 *               an item leaves its queues with ep.lock free.
 *   file.f_ep_lock guards the items of a file; nothing is taken under it.
 *   No event is lost: an item is on the queues of its file before the file is asked; a wake-up puts it on the ready list, and
 *   who takes it off asks the file afterwards.
 */
import { bytes, embed, type Layout, layout, own, Struct, word } from '../abi/layout.js'
import { INIT_LIST_HEAD, list_add_tail, list_del_init, list_empty } from '../abi/list.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { local_irq_restore, local_irq_save } from '../arch/cpu.js'
import { RAM } from '../arch/ram.js'
import { EEXIST, EINVAL, ENOENT, ENOMEM, ENOTTY } from '../lib/errno.js'
import { MAX_EPITEMS, MAX_EVENTPOLLS } from '../lib/limits.js'
import {
  for_programs,
  type kmem_cache,
  kmem_cache_alloc,
  kmem_cache_create,
  kmem_cache_free,
  objects_out,
  with_hoards,
} from '../mm/slab.js'
import { POLLIN, POLLRDNORM, type poll_table, poll_wait } from '../sched/poll.js'
import { down_write, init_rwsem, up_write } from '../sched/rwsem.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from '../sched/semaphore.js'
import {
  add_wait_queue,
  detach_wait_queue,
  init_waitqueue_func_entry,
  init_waitqueue_head,
  type wait_queue_head_t,
  type wait_queue_t,
  waitqueue_active,
  wake_up,
  wake_up_nested,
} from '../sched/wait.js'
import {
  read_lock_irqsave,
  read_unlock_irqrestore,
  rwlock_init,
  write_lock_irqsave,
  write_unlock_irqrestore,
} from '../sync/rwlock.js'
import { spin_lock, spin_unlock } from '../sync/spinlock.js'
import { EP_BUCKETS, EPITEM, EPPOLL_ENTRY, EVENTPOLL, type epitem, type eventpoll } from './eventpoll_types.js'
import { type file, file_hooks, file_op, type file_operations } from './file.js'

type Call = Generator<void, number, void>

const i32 = RAM.i32

export const EPOLL_CTL_ADD = 1
export const EPOLL_CTL_DEL = 2
export const EPOLL_CTL_MOD = 3
/** After it was told once, the file is not looked at until EPOLL_CTL_MOD. */
export const EPOLLONESHOT = 1 << 30
/** Told when something comes, not as long as it is there. */
export const EPOLLET = 1 << 31
/** Bits that are no events. */
export const EP_PRIVATE_BITS = EPOLLONESHOT | EPOLLET
const EP_MAX_POLLWAKE_NESTS = 4

const ep_cache = kmem_cache_create('eventpoll', EVENTPOLL, () => for_programs(with_hoards(MAX_EVENTPOLLS)))
const epi_cache = kmem_cache_create('eventpoll_epi', EPITEM, () => for_programs(with_hoards(MAX_EPITEMS)))
const pwq_cache = kmem_cache_create('eventpoll_pwq', EPPOLL_ENTRY, () => for_programs(with_hoards(MAX_EPITEMS)))

class ep_globals extends Struct {
  declare epsem: semaphore
}
const GLOBALS: Layout<ep_globals> = layout('eventpoll_globals', ep_globals, { epsem: embed(SEMAPHORE) })
const { epsem } = DEFINE_STATIC('eventpoll_globals', GLOBALS)

/** The queues that this CPU is waking, one from within the other. */
class poll_safewake extends Struct {
  declare depth: number
  declare queues: number
}
const SAFEWAKE: Layout<poll_safewake> = layout('poll_safewake', poll_safewake, {
  depth: own(word),
  queues: own(bytes(EP_MAX_POLLWAKE_NESTS * 4)),
})
const psw = DEFINE_PER_CPU('poll_safewake', SAFEWAKE).mine

// ---- waking ---------------------------------------------------------------------------------------------------------

/**
 * ep_poll_safewake - wake who waits for an epoll file; where these watch each other in a circle, or more than four deep, it ends.
 * Interrupts are off, so what this CPU is in the middle of is a chain of calls. @context any
 */
export function ep_poll_safewake(q: wait_queue_head_t): void {
  const flags = local_irq_save()
  const { depth } = psw
  const at = psw.queues >> 2
  let circle = depth === EP_MAX_POLLWAKE_NESTS
  for (let k = 0; k < depth; k++) circle ||= i32[at + k] === q.addr
  if (!circle) {
    i32[at + depth] = q.addr
    psw.depth = depth + 1
    wake_up_nested(q, depth)
    psw.depth = depth
  }
  local_irq_restore(flags)
}

/** Who sleeps in epoll_wait goes on. @locks ep.lock is held @returns whether somebody waits for the epoll file itself */
export function wake_sleepers(ep: eventpoll): boolean {
  if (waitqueue_active(ep.wq)) wake_up(ep.wq)
  return waitqueue_active(ep.poll_wait)
}
/** On the ready list, unless it is there, and somebody is told. @locks ep.lock is held @returns as wake_sleepers */
function make_ready(ep: eventpoll, epi: epitem): boolean {
  if (list_empty(epi.rdllink)) list_add_tail(epi.rdllink, ep.rdllist)
  return wake_sleepers(ep)
}

/** ep_poll_callback - a queue of a watched file is woken. @context any @locks that queue's lock is held; ep.lock */
function ep_poll_callback(wait: wait_queue_t): boolean {
  const epi = EPPOLL_ENTRY.container_of('wait', wait.addr).base!
  const ep = epi.ep!
  const flags = write_lock_irqsave(ep.lock)
  const pwake = (epi.events & ~EP_PRIVATE_BITS) !== 0 && make_ready(ep, epi)
  write_unlock_irqrestore(ep.lock, flags)
  if (pwake) ep_poll_safewake(ep.poll_wait)
  return true
}
const ep_poll_callback_sym = symbol('ep_poll_callback', ep_poll_callback)

/** ep_ptable_queue_proc - the item enters a queue of its file. @context process @locks ep.sem is held for writing */
function ep_ptable_queue_proc(epi: epitem, whead: wait_queue_head_t): void {
  const pwq = epi.nwait >= 0 ? kmem_cache_alloc(pwq_cache) : null
  if (pwq === null) {
    epi.nwait = -1
    return
  }
  pwq.base = epi
  pwq.whead = whead
  init_waitqueue_func_entry(pwq.wait, ep_poll_callback_sym)
  add_wait_queue(whead, pwq.wait)
  list_add_tail(pwq.llink, epi.pwqlist)
  epi.nwait++
}
/** ep_unregister_pollwait - off all queues: no wake-up finds the item any more. @context process @locks ep.lock is not held */
function ep_unregister_pollwait(epi: epitem): void {
  epi.nwait = 0
  while (!list_empty(epi.pwqlist)) {
    const pwq = EPPOLL_ENTRY.container_of('llink', epi.pwqlist.next)
    list_del_init(pwq.llink)
    detach_wait_queue(pwq.whead!, pwq.wait)
    kmem_cache_free(pwq_cache, pwq)
  }
}

// ---- items ----------------------------------------------------------------------------------------------------------

/** What the program asks for: struct epoll_event. */
export interface epoll_event {
  readonly events: number
  readonly data: readonly [lo: number, hi: number]
}

function bucket(ep: eventpoll, filp: file, fd: number): number {
  return (ep.buckets >> 2) + (((filp.addr >> 6) + fd) & (EP_BUCKETS - 1))
}
/** ep_find - @locks ep.sem is held */
function ep_find(ep: eventpoll, filp: file, fd: number): epitem | null {
  for (let at = i32[bucket(ep, filp, fd)]!; at !== 0; at = EPITEM.ref(at).next) {
    const epi = EPITEM.ref(at)
    if (epi.file === filp && epi.fd === fd) return epi
  }
  return null
}
/** @locks ep.sem is held for writing */
function unchain(ep: eventpoll, epi: epitem): void {
  const head = bucket(ep, epi.file!, epi.fd)
  if (i32[head] === epi.addr) {
    i32[head] = epi.next
    return
  }
  let before = EPITEM.ref(i32[head]!)
  while (before.next !== epi.addr) before = EPITEM.ref(before.next)
  before.next = epi.next
}

/** ask - what a file has, which may enter queues on the way. @context process */
export function ask(filp: file, pt: poll_table | null): number {
  return file_op(filp).poll!(filp, pt)
}

function new_item(ep: eventpoll, event: epoll_event, filp: file, fd: number): epitem | null {
  const epi = kmem_cache_alloc(epi_cache)
  if (epi === null) return null
  for (const link of [epi.rdllink, epi.txlink, epi.pwqlist, epi.fllink]) INIT_LIST_HEAD(link)
  epi.ep = ep
  epi.linked = 0
  epi.file = filp
  epi.fd = fd
  epi.nwait = 0
  epi.events = event.events
  epi.data_lo = event.data[0]
  epi.data_hi = event.data[1]
  return epi
}

/** ep_insert - @context process @locks ep.sem is held for writing @returns 0, -ENOMEM */
function ep_insert(ep: eventpoll, event: epoll_event, filp: file, fd: number): number {
  const epi = new_item(ep, event, filp, fd)
  if (epi === null) return -ENOMEM
  const revents = ask(filp, { entries: [], error: 0, queue: whead => ep_ptable_queue_proc(epi, whead) })
  if (epi.nwait < 0) {
    ep_unregister_pollwait(epi)
    const flags = write_lock_irqsave(ep.lock)
    if (!list_empty(epi.rdllink)) list_del_init(epi.rdllink) // an event came meanwhile
    write_unlock_irqrestore(ep.lock, flags)
    kmem_cache_free(epi_cache, epi)
    return -ENOMEM
  }
  filp.f_ep_watched = 1
  spin_lock(filp.f_ep_lock)
  list_add_tail(epi.fllink, filp.f_ep_links)
  spin_unlock(filp.f_ep_lock)
  const head = bucket(ep, filp, fd)
  epi.next = i32[head]!
  i32[head] = epi.addr
  const flags = write_lock_irqsave(ep.lock)
  epi.linked = 1
  const pwake = (revents & event.events) !== 0 && list_empty(epi.rdllink) && make_ready(ep, epi)
  write_unlock_irqrestore(ep.lock, flags)
  if (pwake) ep_poll_safewake(ep.poll_wait)
  return 0
}

/** ep_modify - what is asked for changes before the file is asked, so that nothing falls between. @locks ep.sem for writing */
function ep_modify(ep: eventpoll, epi: epitem, event: epoll_event): number {
  epi.events = event.events
  const revents = ask(epi.file!, null)
  epi.data_lo = event.data[0]
  epi.data_hi = event.data[1]
  const flags = write_lock_irqsave(ep.lock)
  const pwake = (revents & event.events) !== 0 && list_empty(epi.rdllink) && make_ready(ep, epi)
  write_unlock_irqrestore(ep.lock, flags)
  if (pwake) ep_poll_safewake(ep.poll_wait)
  return 0
}

/** ep_remove - @context process @locks ep.sem is held for writing, or nobody has ep any more @consumes epi */
function ep_remove(ep: eventpoll, epi: epitem): number {
  ep_unregister_pollwait(epi)
  const filp = epi.file!
  spin_lock(filp.f_ep_lock)
  if (!list_empty(epi.fllink)) list_del_init(epi.fllink)
  spin_unlock(filp.f_ep_lock)
  unchain(ep, epi)
  const flags = write_lock_irqsave(ep.lock)
  epi.linked = 0
  epi.events = 0
  if (!list_empty(epi.rdllink)) list_del_init(epi.rdllink)
  write_unlock_irqrestore(ep.lock, flags)
  kmem_cache_free(epi_cache, epi)
  return 0
}

// ---- ends -----------------------------------------------------------------------------------------------------------

/** eventpoll_release - a watched file goes: nobody else has it but the epoll files that watch it. @context process @locks epsem */
function* eventpoll_release(filp: file): Generator<void, void, void> {
  yield* down(epsem)
  while (!list_empty(filp.f_ep_links)) {
    const epi = EPITEM.container_of('fllink', filp.f_ep_links.next)
    const ep = epi.ep!
    list_del_init(epi.fllink)
    yield* down_write(ep.sem)
    ep_remove(ep, epi)
    up_write(ep.sem)
  }
  up(epsem)
}
file_hooks.eventpoll_release = eventpoll_release

/** ep_free - an epoll file goes; first of all, no wake-up finds its items. @context process @locks epsem @consumes ep */
function* ep_free(ep: eventpoll): Generator<void, void, void> {
  if (waitqueue_active(ep.poll_wait)) ep_poll_safewake(ep.poll_wait)
  yield* down(epsem)
  const heads = ep.buckets >> 2
  for (let k = 0; k < EP_BUCKETS; k++)
    for (let at = i32[heads + k]!; at !== 0; at = EPITEM.ref(at).next) ep_unregister_pollwait(EPITEM.ref(at))
  for (let k = 0; k < EP_BUCKETS; k++) while (i32[heads + k] !== 0) ep_remove(ep, EPITEM.ref(i32[heads + k]!))
  up(epsem)
  kmem_cache_free(ep_cache, ep)
}

/** ep_control - what epoll_ctl does. @context process @locks ep.sem is held for writing @returns 0, -EEXIST, -ENOENT, -ENOMEM, -EINVAL: unknown operation */
export function ep_control(ep: eventpoll, op: number, filp: file, fd: number, event: epoll_event): number {
  const epi = ep_find(ep, filp, fd)
  switch (op) {
    case EPOLL_CTL_ADD:
      return epi !== null ? -EEXIST : ep_insert(ep, event, filp, fd)
    case EPOLL_CTL_DEL:
      return epi === null ? -ENOENT : ep_remove(ep, epi)
    case EPOLL_CTL_MOD:
      return epi === null ? -ENOENT : ep_modify(ep, epi, event)
    default:
      return -EINVAL
  }
}
// ---- as files -------------------------------------------------------------------------------------------------------

/** is_ready - does some item seem to have something? @locks ep.lock */
export function is_ready(ep: eventpoll): boolean {
  const flags = read_lock_irqsave(ep.lock)
  const ready = !list_empty(ep.rdllist)
  read_unlock_irqrestore(ep.lock, flags)
  return ready
}

function* unsupported(): Call {
  return -EINVAL
}
const eventpoll_fops: file_operations = {
  read: unsupported,
  write: unsupported,
  readv: unsupported,
  writev: unsupported,
  *ioctl() {
    return -ENOTTY
  },
  poll(filp, pt) {
    const ep = EVENTPOLL.ref(filp.private_data)
    poll_wait(ep.poll_wait, pt)
    return is_ready(ep) ? POLLIN | POLLRDNORM : 0
  },
  restarts: true,
  release: filp => ep_free(EVENTPOLL.ref(filp.private_data)),
}
export const eventpoll_fops_sym = symbol('eventpoll_fops', eventpoll_fops)

/** ep_alloc - without items, or null: no memory. */
export function ep_alloc(): eventpoll | null {
  const ep = kmem_cache_alloc(ep_cache)
  if (ep === null) return null
  rwlock_init(ep.lock)
  init_rwsem(ep.sem)
  init_waitqueue_head(ep.wq)
  init_waitqueue_head(ep.poll_wait)
  INIT_LIST_HEAD(ep.rdllist)
  i32.fill(0, ep.buckets >> 2, (ep.buckets >> 2) + EP_BUCKETS)
  return ep
}

/** ep_forget - one that nobody got to see. @consumes ep */
export function ep_forget(ep: eventpoll): void {
  kmem_cache_free(ep_cache, ep)
}

/** eventpoll_init - @context boot, CPU 0 */
export function eventpoll_init(): void {
  init_MUTEX(epsem)
}
/** eventpolls_halt - who was in the middle of a call never goes on: what he had taken is free. @context a halted machine */
export function eventpolls_halt(): void {
  init_MUTEX(epsem)
  for (const addr of objects_out(ep_cache as unknown as kmem_cache<Struct>)) init_rwsem(EVENTPOLL.ref(addr).sem)
}
