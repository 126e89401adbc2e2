/** fifo.ts - the ends of a FIFO (fs/fifo.c of 2.6.11): who opens one waits for the other. Locks: pipe.ts. */
import { EINVAL, ENXIO, ERESTARTSYS } from '../lib/errno.js'
import { O_NONBLOCK } from '../lib/fcntl.js'
import { current } from '../sched/sched.js'
import { down, up } from '../sched/semaphore.js'
import { signal_pending } from '../sched/signal.js'
import { wake_up } from '../sched/wait.js'
import { can_read, can_write, type file } from './file.js'
import { PIPE, type pipe_inode, pipe_release_ends, pipe_wait } from './pipe.js'

type Call = Generator<void, number, void>

/** Sleep until the other end was opened, be it closed again by now. @locks i_sem is held, dropped to sleep */
function* wait_for_partner(pipe: pipe_inode, counter: () => number): Generator<void, void, void> {
  const before = counter()
  while (counter() === before && !signal_pending(current())) yield* pipe_wait(pipe)
}

/** For reading: without a writer it waits for one; who does not wait is not told of a hangup until there was one. */
function* open_reader(pipe: pipe_inode, filp: file): Generator<void, void, void> {
  pipe.r_counter++
  if (pipe.readers++ === 0) wake_up(pipe.wait)
  if (pipe.writers > 0) return
  if ((filp.f_flags & O_NONBLOCK) !== 0) filp.f_version = pipe.w_counter
  else yield* wait_for_partner(pipe, () => pipe.w_counter)
}
function* open_writer(pipe: pipe_inode): Generator<void, void, void> {
  pipe.w_counter++
  if (pipe.writers++ === 0) wake_up(pipe.wait)
  if (pipe.readers === 0) yield* wait_for_partner(pipe, () => pipe.r_counter)
}
/** For both it never waits: it can talk to itself. */
function open_both(pipe: pipe_inode): void {
  pipe.r_counter++
  pipe.w_counter++
  const first = pipe.readers++ === 0
  if (pipe.writers++ === 0 || first) wake_up(pipe.wait)
}

/**
 * fifo_open - this file is an end of its pipe, which it has a reference of. @context process @locks i_sem
 * @returns 0, -ENXIO: nobody reads, and who writes does not wait; -ERESTARTSYS, -EINVAL
 */
export function* fifo_open(filp: file): Call {
  const pipe = PIPE.ref(filp.private_data)
  const [reads, writes] = [can_read(filp), can_write(filp)]
  if (!reads && !writes) return -EINVAL
  yield* down(pipe.i_sem)
  if (!reads && (filp.f_flags & O_NONBLOCK) !== 0 && pipe.readers === 0) {
    up(pipe.i_sem)
    return -ENXIO
  }
  let interrupted = false
  if (reads && writes) open_both(pipe)
  else {
    const alone = reads ? pipe.writers === 0 && (filp.f_flags & O_NONBLOCK) === 0 : pipe.readers === 0
    yield* reads ? open_reader(pipe, filp) : open_writer(pipe)
    interrupted = alone && signal_pending(current())
    if (interrupted) pipe_release_ends(pipe, reads ? 1 : 0, writes ? 1 : 0)
  }
  up(pipe.i_sem)
  return interrupted ? -ERESTARTSYS : 0
}
