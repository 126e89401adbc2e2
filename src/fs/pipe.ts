/**
 * pipe.ts - pipes (fs/pipe.c of 2.6.11): a ring of 16 pages. What is written with up to a page goes in as a whole (PIPE_BUF);
 * what fits behind the last bytes joins them there. FIFOs are pipes that have a name: fifo.ts.
 *
 * Lock charter
 *   i_sem guards the ring and the counts of ends; copies are made with it held, since they never sleep. Under it: the wait
 *   queue's lock, fasync_lock. Nobody sleeps with it: pipe_wait drops it.
 *   nrbufs, readers, writers and w_counter are looked at without it as well (pipe_poll).
 *   No wake-up is lost: who sleeps enters the queue before he drops i_sem; who changes the ring holds it, and wakes afterwards.
 *   i_count: one of each file, and one of the name of a FIFO. The pages go with the last end, the pipe with the last reference.
 */
import { atomic, by, bytes, embed, konst, type Layout, layout, Struct, word } from '../abi/layout.js'
import { symbol } from '../abi/symbol.js'
import { RAM } from '../arch/ram.js'
import { EAGAIN, EBADF, EFAULT, EINVAL, ENOMEM, EPIPE, ERESTARTSYS } from '../lib/errno.js'
import { O_NONBLOCK } from '../lib/fcntl.js'
import { MAX_PIPE_PAGES, MAX_PIPES, PAGE_SIZE, PIPE_BUFFERS } from '../lib/limits.js'
import {
  for_programs,
  kmem_alloc_addr,
  type kmem_cache,
  kmem_cache_alloc,
  kmem_cache_create,
  kmem_cache_free,
  kmem_free_addr,
  objects_out,
  with_hoards,
} from '../mm/slab.js'
import { fasync_helper, kill_fasync } from '../sched/fasync.js'
import { copy_from_user, copy_to_user, put_user } from '../sched/mm.js'
import { POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM, type poll_table, poll_wait } from '../sched/poll.js'
import { current, schedule } from '../sched/sched.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from '../sched/semaphore.js'
import { SIGIO, SIGPIPE, send_sig, signal_pending } from '../sched/signal.js'
import { TASK_INTERRUPTIBLE } from '../sched/task.js'
import {
  begin_wait,
  finish_wait,
  init_waitqueue_head,
  prepare_to_wait,
  WAIT_QUEUE_HEAD,
  type wait_queue_head_t,
  wake_up,
} from '../sched/wait.js'
import { refcount_dec_and_test, refcount_inc } from '../sync/refcount.js'
import { can_read, can_write, type file, type file_operations, files_out, type uvector } from './file.js'

type Call = Generator<void, number, void>

const i32 = RAM.i32
/** A write of so many bytes is never torn. */
export const PIPE_BUF = PAGE_SIZE
export const FIONREAD = 0x541b

export class pipe_inode extends Struct {
  declare i_count: number
  declare i_sem: semaphore
  declare wait: wait_queue_head_t
  declare nrbufs: number
  declare curbuf: number
  declare tmp_page: number
  declare readers: number
  declare writers: number
  declare waiting_writers: number
  declare r_counter: number
  declare w_counter: number
  declare fasync_readers: number
  declare fasync_writers: number
  declare uid: number
  declare mode: number
  declare bufs: number
}
export const PIPE: Layout<pipe_inode> = layout('pipe_inode', pipe_inode, {
  i_count: atomic(word),
  i_sem: embed(SEMAPHORE),
  wait: embed(WAIT_QUEUE_HEAD), // of readers and of writers
  nrbufs: atomic(word), // pages that have something
  curbuf: by('i_sem', word), // the first of them
  tmp_page: by('i_sem', word), // a page that was read empty, for the next writer
  readers: atomic(word), // ends that are open
  writers: atomic(word),
  waiting_writers: by('i_sem', word),
  r_counter: by('i_sem', word), // ends that were ever opened: who waits for one sees that it came, though it has gone again
  w_counter: atomic(word),
  fasync_readers: atomic(word), // lists of fasync_helper
  fasync_writers: atomic(word),
  uid: konst(word), // of a FIFO: whose it is, and who may open it
  mode: konst(word),
  bufs: by('i_sem', bytes(PIPE_BUFFERS * 12)), // pipe_buffer: page, offset, len
})
const pipe_cache = kmem_cache_create('pipe_inode', PIPE, () => for_programs(with_hoards(MAX_PIPES)))

class pipe_page extends Struct {
  declare first: number
}
const PAGE: Layout<pipe_page> = layout('pipe_page', pipe_page, { first: word })
const page_cache = kmem_cache_create('pipe_page', PAGE, () => for_programs(MAX_PIPE_PAGES), PAGE_SIZE)

const FASYNC_READERS = PIPE.offset('fasync_readers')
const FASYNC_WRITERS = PIPE.offset('fasync_writers')

// ---- the ring -------------------------------------------------------------------------------------------------------

/** Words of a pipe_buffer. */
const [PAGE_AT, OFFSET, LEN] = [0, 1, 2]

/** Where the `k`th page from the first one on is described. */
function buffer(pipe: pipe_inode, k: number): number {
  return (pipe.bufs >> 2) + ((pipe.curbuf + k) & (PIPE_BUFFERS - 1)) * 3
}
/** anon_pipe_buf_release - a page was read empty: kept, if none is. */
function release_page(pipe: pipe_inode, page: number): void {
  if (pipe.tmp_page !== 0) kmem_free_addr(page_cache, page)
  else pipe.tmp_page = page
}
function free_pages(pipe: pipe_inode): void {
  for (; pipe.nrbufs > 0; pipe.nrbufs--) {
    kmem_free_addr(page_cache, i32[buffer(pipe, 0) + PAGE_AT]!)
    pipe.curbuf = (pipe.curbuf + 1) & (PIPE_BUFFERS - 1)
  }
  if (pipe.tmp_page !== 0) kmem_free_addr(page_cache, pipe.tmp_page)
  pipe.tmp_page = 0
}

/** pipe_new - without ends. @returns it with one reference, or null: no memory */
export function pipe_new(uid = 0, mode = 0): pipe_inode | null {
  const pipe = kmem_cache_alloc(pipe_cache)
  if (pipe === null) return null
  i32.fill(0, pipe.$w, pipe.$w + (PIPE.size >> 2))
  init_MUTEX(pipe.i_sem)
  init_waitqueue_head(pipe.wait)
  pipe.i_count = 1
  pipe.r_counter = 1
  pipe.w_counter = 1
  pipe.uid = uid
  pipe.mode = mode
  return pipe
}
export function pipe_get(pipe: pipe_inode): void {
  refcount_inc(pipe.addr)
}
/** pipe_put - @consumes a reference */
export function pipe_put(pipe: pipe_inode): void {
  if (refcount_dec_and_test(pipe.addr)) kmem_cache_free(pipe_cache, pipe)
}

/** pipe_wait - until somebody changes something. @context process @locks i_sem is held, dropped to sleep */
export function* pipe_wait(pipe: pipe_inode): Generator<void, void, void> {
  const wait = begin_wait()
  if (wait !== null) prepare_to_wait(pipe.wait, wait, TASK_INTERRUPTIBLE)
  up(pipe.i_sem)
  yield* schedule() // without an entry: look again and again
  if (wait !== null) finish_wait(pipe.wait, wait)
  yield* down(pipe.i_sem)
}
/** Those at the other end go on: processes, and owners that are told by a signal. */
function wake_other_end(pipe: pipe_inode, list: number): void {
  wake_up(pipe.wait)
  kill_fasync(pipe.addr + list, SIGIO)
}
/** pipe_ends_changed - an end was closed. @locks i_sem is held */
function pipe_ends_changed(pipe: pipe_inode): void {
  wake_up(pipe.wait)
  kill_fasync(pipe.addr + FASYNC_READERS, SIGIO)
  kill_fasync(pipe.addr + FASYNC_WRITERS, SIGIO)
}

// ---- vectors --------------------------------------------------------------------------------------------------------

/** The user's vector, and how far it is used up. Lives on the stack of the call. */
interface iov_iter {
  readonly iov: uvector
  seg: number
  done: number
}
function one_buffer(buf: number, count: number): iov_iter {
  return { iov: [[buf, count]], seg: 0, done: 0 }
}
/** `len` bytes between `at` and the vector, by pieces. @returns 0, -EFAULT */
function copy_iov(
  iter: iov_iter,
  at: number,
  len: number,
  copy: (user: number, at: number, len: number) => number,
): number {
  while (len > 0) {
    const [base, size] = iter.iov[iter.seg]!
    const n = Math.min(len, size - iter.done)
    if (n > 0 && copy(base + iter.done, at, n) !== 0) return -EFAULT
    iter.done += n
    at += n
    len -= n
    if (iter.done === size) {
      iter.seg++
      iter.done = 0
    }
  }
  return 0
}
const to_user = copy_to_user
const from_user = (user: number, at: number, len: number): number => copy_from_user(at, user, len)

// ---- reading --------------------------------------------------------------------------------------------------------

/** What there is, up to `left` bytes. @locks i_sem is held @returns [bytes, pages that were read empty, errno] */
function take(pipe: pipe_inode, iter: iov_iter, left: number): [number, number, number] {
  let done = 0
  let emptied = 0
  while (pipe.nrbufs > 0 && done < left) {
    const b = buffer(pipe, 0)
    const n = Math.min(i32[b + LEN]!, left - done)
    if (copy_iov(iter, i32[b + PAGE_AT]! + i32[b + OFFSET]!, n, to_user) !== 0) return [done, emptied, -EFAULT]
    done += n
    i32[b + OFFSET] = i32[b + OFFSET]! + n
    i32[b + LEN] = i32[b + LEN]! - n
    if (i32[b + LEN] !== 0) break
    release_page(pipe, i32[b + PAGE_AT]!)
    pipe.curbuf = (pipe.curbuf + 1) & (PIPE_BUFFERS - 1)
    pipe.nrbufs--
    emptied++
  }
  return [done, emptied, 0]
}

/** Why a reader that wants more does not sleep for it. @returns errno; 0: what it has is all; 1: it is to sleep */
function no_more(pipe: pipe_inode, filp: file, got: number): number {
  if (pipe.writers === 0) return 0
  // Who writes and sleeps has more: it is worth waiting for, as if it were there.
  if (pipe.waiting_writers === 0) {
    if (got > 0) return 0
    if ((filp.f_flags & O_NONBLOCK) !== 0) return -EAGAIN
  }
  return signal_pending(current()) ? -ERESTARTSYS : 1
}

/** @returns bytes, 0: nobody will write any more, -EAGAIN, -ERESTARTSYS, -EFAULT */
function* pipe_read_iov(filp: file, iter: iov_iter, total: number): Call {
  const pipe = PIPE.ref(filp.private_data)
  let got = 0
  let room = false
  yield* down(pipe.i_sem)
  for (;;) {
    const [n, emptied, fault] = take(pipe, iter, total - got)
    got += n
    room ||= emptied > 0
    const err = fault !== 0 ? fault : got === total ? 0 : no_more(pipe, filp, got)
    if (err <= 0) {
      if (got === 0) got = err
      break
    }
    if (room) wake_other_end(pipe, FASYNC_WRITERS)
    yield* pipe_wait(pipe)
  }
  up(pipe.i_sem)
  if (room) wake_other_end(pipe, FASYNC_WRITERS)
  return got
}

// ---- writing --------------------------------------------------------------------------------------------------------

/** Small writes join the last page, if they fit as a whole. @locks i_sem is held @returns bytes, 0: they do not, -EFAULT */
function merge(pipe: pipe_inode, iter: iov_iter, total: number): number {
  if (pipe.nrbufs === 0 || total >= PAGE_SIZE) return 0
  const b = buffer(pipe, pipe.nrbufs - 1)
  const end = i32[b + OFFSET]! + i32[b + LEN]!
  if (end + total > PAGE_SIZE) return 0
  if (copy_iov(iter, i32[b + PAGE_AT]! + end, total, from_user) !== 0) return -EFAULT
  i32[b + LEN] = i32[b + LEN]! + total
  return total
}

/** As many pages as there is room for. @locks i_sem is held @returns [bytes, errno] */
function put(pipe: pipe_inode, iter: iov_iter, left: number): [number, number] {
  let done = 0
  while (pipe.nrbufs < PIPE_BUFFERS && done < left) {
    const page = pipe.tmp_page !== 0 ? pipe.tmp_page : kmem_alloc_addr(page_cache)
    if (page === 0) return [done, -ENOMEM]
    pipe.tmp_page = page
    const n = Math.min(PAGE_SIZE, left - done)
    if (copy_iov(iter, page, n, from_user) !== 0) return [done, -EFAULT]
    const b = buffer(pipe, pipe.nrbufs)
    i32[b + PAGE_AT] = page
    i32[b + OFFSET] = 0
    i32[b + LEN] = n
    pipe.tmp_page = 0
    pipe.nrbufs++
    done += n
  }
  return [done, 0]
}

/** Nobody reads any more: the writer is told by a signal, too. */
function broken_pipe(): number {
  send_sig(SIGPIPE, current())
  return -EPIPE
}

/** @returns bytes, -EPIPE, -EAGAIN, -ERESTARTSYS, -EFAULT, -ENOMEM */
function* pipe_write_iov(filp: file, iter: iov_iter, total: number): Call {
  const pipe = PIPE.ref(filp.private_data)
  let wake = false
  yield* down(pipe.i_sem)
  let done = pipe.readers === 0 ? 0 : merge(pipe, iter, total)
  if (done !== 0) wake = true
  else
    for (;;) {
      if (pipe.readers === 0) {
        const err = broken_pipe()
        if (done === 0) done = err
        break
      }
      const full = pipe.nrbufs === PIPE_BUFFERS
      const [n, fault] = put(pipe, iter, total - done)
      done += n
      wake ||= !full
      const nonblock = (filp.f_flags & O_NONBLOCK) !== 0
      const err = fault !== 0 ? fault : nonblock ? -EAGAIN : signal_pending(current()) ? -ERESTARTSYS : 0
      if (done === total) break
      if (err !== 0) {
        if (done === 0) done = err
        break
      }
      if (wake) wake_other_end(pipe, FASYNC_READERS)
      wake = false
      pipe.waiting_writers++
      yield* pipe_wait(pipe)
      pipe.waiting_writers--
    }
  up(pipe.i_sem)
  if (wake) wake_other_end(pipe, FASYNC_READERS)
  return done
}

// ---- as files -------------------------------------------------------------------------------------------------------

function* pipe_read(filp: file, buf: number, count: number): Call {
  return count === 0 ? 0 : yield* pipe_read_iov(filp, one_buffer(buf, count), count)
}
function* pipe_write(filp: file, buf: number, count: number): Call {
  return count === 0 ? 0 : yield* pipe_write_iov(filp, one_buffer(buf, count), count)
}
function* pipe_readv(filp: file, iov: uvector, total: number): Call {
  return can_read(filp) ? yield* pipe_read_iov(filp, { iov, seg: 0, done: 0 }, total) : -EBADF
}
function* pipe_writev(filp: file, iov: uvector, total: number): Call {
  return can_write(filp) ? yield* pipe_write_iov(filp, { iov, seg: 0, done: 0 }, total) : -EBADF
}

/** pipe_ioctl - how many bytes there are. @returns 0, -EINVAL: it knows nothing else, -EFAULT */
function* pipe_ioctl(filp: file, cmd: number, arg: number): Call {
  if (cmd !== FIONREAD) return -EINVAL
  const pipe = PIPE.ref(filp.private_data)
  yield* down(pipe.i_sem)
  let count = 0
  for (let k = 0; k < pipe.nrbufs; k++) count += i32[buffer(pipe, k) + LEN]!
  up(pipe.i_sem)
  return put_user(count, arg)
}

/** pipe_poll - either end tells of both directions. @context process */
function pipe_poll(filp: file, pt: poll_table | null): number {
  const pipe = PIPE.ref(filp.private_data)
  poll_wait(pipe.wait, pt)
  const { nrbufs } = pipe
  let mask = nrbufs > 0 ? POLLIN | POLLRDNORM : 0
  if (nrbufs < PIPE_BUFFERS) mask |= POLLOUT | POLLWRNORM
  if (pipe.writers === 0 && filp.f_version !== pipe.w_counter) mask |= POLLHUP
  if (pipe.readers === 0) mask |= POLLERR
  return mask
}

/** pipe_fasync - for each of its directions. @context process */
function* pipe_fasync(fd: number, filp: file, on: boolean): Call {
  const pipe = PIPE.ref(filp.private_data)
  yield* down(pipe.i_sem)
  let err = can_read(filp) ? fasync_helper(pipe.addr + FASYNC_READERS, filp.f_owner, fd, on) : 0
  if (err === 0 && can_write(filp)) err = fasync_helper(pipe.addr + FASYNC_WRITERS, filp.f_owner, fd, on)
  up(pipe.i_sem)
  return err
}

/** pipe_release_ends - so many readers and writers less. @context process @locks i_sem is held */
export function pipe_release_ends(pipe: pipe_inode, readers: number, writers: number): void {
  pipe.readers -= readers
  pipe.writers -= writers
  if (pipe.readers === 0 && pipe.writers === 0) free_pages(pipe)
  else pipe_ends_changed(pipe)
}
function* pipe_release(filp: file): Generator<void, void, void> {
  yield* pipe_fasync(-1, filp, false)
  const pipe = PIPE.ref(filp.private_data)
  yield* down(pipe.i_sem)
  pipe_release_ends(pipe, can_read(filp) ? 1 : 0, can_write(filp) ? 1 : 0)
  up(pipe.i_sem)
  pipe_put(pipe)
}

const pipe_fops: file_operations = {
  read: pipe_read,
  write: pipe_write,
  readv: pipe_readv,
  writev: pipe_writev,
  ioctl: pipe_ioctl,
  poll: pipe_poll,
  fasync: pipe_fasync,
  restarts: true,
  release: pipe_release,
}
export const pipe_fops_sym = symbol('pipe_fops', pipe_fops)

/**
 * pipes_halt - who was in the middle of a call never goes on: what he had taken is free, and the ends are those of the files that
 * are there. @context a halted machine
 */
export function pipes_halt(): void {
  for (const addr of objects_out(pipe_cache as unknown as kmem_cache<Struct>)) {
    const pipe = PIPE.ref(addr)
    init_MUTEX(pipe.i_sem)
    pipe.readers = 0
    pipe.writers = 0
  }
  for (const filp of files_out()) {
    if (filp.f_op !== pipe_fops_sym) continue
    const pipe = PIPE.ref(filp.private_data)
    if (can_read(filp)) pipe.readers++
    if (can_write(filp)) pipe.writers++
  }
}
