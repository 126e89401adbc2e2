/**
 * console.ts - the console of the machine: what programs write lies in a ring in RAM, as records that say who wrote, and the
 * host takes them out while the machine runs. Reading gives the end of the file. Files that programs create go the same way:
 * there is no disk, so the host keeps them.
 *
 * Lock charter
 *   console.lock guards head and the ring from head on to tail; nothing is called under it but the copies. Records are written
 *   before head is, which the host reads first.
 *   tail is the host's alone: it gives room and tells nobody. The clock tick of CPU 0 looks at it and wakes who waits for room.
 */
import { atomic, by, bytes, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { fetch_add, load, store } from '../../arch/atomic.js'
import { cpu_id } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { type file, type file_operations, get_empty_filp, release_unused, type uvector } from '../../fs/file.js'
import { tick_hooks } from '../../irq/timer.js'
import { EAGAIN, EBADF, EFAULT, ENOTTY, ERESTARTSYS } from '../../lib/errno.js'
import { O_NONBLOCK, O_RDWR, O_WRONLY } from '../../lib/fcntl.js'
import { CONSOLE_CHUNK, CONSOLE_RING } from '../../lib/limits.js'
import { copy_from_user } from '../../sched/mm.js'
import { current, schedule } from '../../sched/sched.js'
import { signal_pending } from '../../sched/signal.js'
import { TASK_INTERRUPTIBLE } from '../../sched/task.js'
import {
  begin_wait,
  finish_wait,
  init_waitqueue_head,
  prepare_to_wait,
  WAIT_QUEUE_HEAD,
  type wait_queue_head_t,
  waitqueue_active,
  wake_up_all,
} from '../../sched/wait.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'

const i32 = RAM.i32
const MASK = CONSOLE_RING - 1
/**
 * Of a record: bytes of text, pid, index of the process, descriptor. The text follows, and then nothing up to a whole word.
 * Of a file: its number instead of a process, and FILE_RECORD; its first record is its name.
 */
const HEADER = 16
const FILE_RECORD = 3

export class console_ring extends Struct {
  declare lock: spinlock_t
  declare wait: wait_queue_head_t
  declare head: number
  declare tail: number
  declare nr_files: number
  declare ring: number
}
const CONSOLE: Layout<console_ring> = layout('console', console_ring, {
  lock: embed(SPINLOCK),
  wait: embed(WAIT_QUEUE_HEAD), // of who waits for room
  head: atomic(word), // written under the lock; bytes ever written; both only grow, around 2^32
  tail: atomic(word), // bytes ever taken out: the host's
  nr_files: atomic(word), // that were ever created: the next one's number
  ring: by('lock', bytes(CONSOLE_RING)),
})
const con = DEFINE_STATIC('console', CONSOLE)
const HEAD = CONSOLE.offset('head')
const TAIL = CONSOLE.offset('tail')
const NR_FILES = CONSOLE.offset('nr_files')

/** A chunk and its header take so much at most. */
const ENOUGH = HEADER + CONSOLE_CHUNK

function room(): number {
  return CONSOLE_RING - ((load(con.addr + HEAD) - load(con.addr + TAIL)) | 0)
}

function put_word(at: number, value: number): void {
  i32[(con.ring + (at & MASK)) >> 2] = value
}
/** The user's text around the ring's end. @locks con.lock is held @returns 0, -EFAULT */
function put_text(at: number, from: number, len: number): number {
  const first = Math.min(len, CONSOLE_RING - (at & MASK))
  if (copy_from_user(con.ring + (at & MASK), from, first) !== 0) return -EFAULT
  if (first === len) return 0
  return copy_from_user(con.ring, from + first, len - first) !== 0 ? -EFAULT : 0
}

/** con_put - one record, if there is room. @locks con.lock @returns bytes of text, 0: no room, -EFAULT */
function con_put(who: number, buf: number, len: number): number {
  spin_lock(con.lock)
  const padded = (len + 3) & ~3
  if (room() < HEADER + padded) {
    spin_unlock(con.lock)
    return 0
  }
  const head = con.head
  const err = put_text(head + HEADER, buf, len)
  if (err === 0) {
    put_word(head, len)
    put_word(head + 4, current().pid)
    put_word(head + 8, who >> 2)
    put_word(head + 12, who & 3)
    store(con.addr + HEAD, (head + HEADER + padded) | 0)
  }
  spin_unlock(con.lock)
  return err === 0 ? len : err
}

/** con_wait - sleep until there is room for any record. @context process @returns 0, -EAGAIN, -ERESTARTSYS */
function* con_wait(filp: file): Generator<void, number, void> {
  if ((filp.f_flags & O_NONBLOCK) !== 0) return -EAGAIN
  const wait = begin_wait()
  if (wait === null) {
    yield* schedule() // no entry to be had: look again
    return 0
  }
  prepare_to_wait(con.wait, wait, TASK_INTERRUPTIBLE)
  const interrupted = signal_pending(current())
  if (!interrupted && room() < ENOUGH) yield* schedule()
  finish_wait(con.wait, wait)
  return interrupted ? -ERESTARTSYS : 0
}

/** con_write - lines of one write stay together up to CONSOLE_CHUNK bytes. @returns bytes, or what stopped the first one */
function* con_write(filp: file, buf: number, count: number): Generator<void, number, void> {
  let done = 0
  while (done < count) {
    const n = con_put(filp.private_data, buf + done, Math.min(count - done, CONSOLE_CHUNK))
    if (n > 0) {
      done += n
      continue
    }
    const err = n < 0 ? n : yield* con_wait(filp)
    if (err < 0) return done > 0 ? done : err
  }
  return done
}

function* con_writev(filp: file, iov: uvector): Generator<void, number, void> {
  let done = 0
  for (const [base, len] of iov) {
    const n = yield* con_write(filp, base, len)
    if (n < 0) return done > 0 ? done : n
    done += n
    if (n < len) break
  }
  return done
}

const console_fops: file_operations = {
  *read() {
    return 0
  },
  write: con_write,
  *readv() {
    return 0
  },
  writev: con_writev,
  *ioctl() {
    return -ENOTTY
  },
  *release() {},
}
const console_fops_sym = symbol('console_fops', console_fops)

const host_fops: file_operations = {
  ...console_fops,
  *read() {
    return -EBADF
  },
  *readv() {
    return -EBADF
  },
}
const host_fops_sym = symbol('host_fops', host_fops)

/**
 * host_create - a file to write, empty, which the host keeps under the name of `len` bytes at the user's `path`. @context process
 * @returns address of the owned file, 0: no memory, -EFAULT, -ERESTARTSYS
 */
export function* host_create(path: number, len: number): Generator<void, number, void> {
  const filp = get_empty_filp(host_fops_sym, (fetch_add(con.addr + NR_FILES, 1) << 2) | FILE_RECORD, O_WRONLY)
  if (filp === null) return 0
  const n = yield* con_write(filp, path, len)
  if (n === len) return filp.addr
  release_unused(filp)
  return n < 0 ? n : -ERESTARTSYS
}

/** console_open - a file for descriptor `fd` (0 to 2) of process `index`. @returns owned file, or null */
export function console_open(index: number, fd: number): file | null {
  return get_empty_filp(console_fops_sym, (index << 2) | fd, O_RDWR)
}

/** console_tick - the host may have made room. @context hardirq */
export function console_tick(): void {
  if (cpu_id > 0 || !waitqueue_active(con.wait)) return
  if (room() >= ENOUGH) wake_up_all(con.wait)
}
tick_hooks.push(console_tick)

/** console_init - @context boot, CPU 0 */
export function console_init(): void {
  spin_lock_init(con.lock)
  init_waitqueue_head(con.wait)
}
