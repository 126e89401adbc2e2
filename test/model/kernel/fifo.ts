/**
 * A process on CPU 0 opens one end of a FIFO and is interrupted by signals while one on CPU 1 opens the other end: each open ends,
 * one byte goes through, and no end is counted that is not open. Two broken twins: one waits for the other end as if it looked
 * before it is on the queue, and sleeps for ever; one does not take its end back when it is interrupted.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { type Sym, symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { fget, file_op, fput_test } from '../../../src/fs/file.js'
import { PIPE, type pipe_inode } from '../../../src/fs/pipe.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { EINTR, ERESTARTSYS } from '../../../src/lib/errno.js'
import { current, schedule } from '../../../src/sched/sched.js'
import { down, up } from '../../../src/sched/semaphore.js'
import { signal_pending } from '../../../src/sched/signal.js'
import { type Program, TASK_INTERRUPTIBLE } from '../../../src/sched/task.js'
import { begin_wait, finish_wait, prepare_to_wait } from '../../../src/sched/wait.js'
import { run_program } from '../../../src/syscall/process.js'
import {
  close,
  fcntl,
  ioctl,
  type Libc,
  malloc,
  read,
  sched_yield,
  string,
  unlink,
  write,
} from '../../../src/user/libc.js'
import { F_SETFL, mkfifo, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, open } from '../../../src/user/libc_file.js'
import { kill, SA_RESTART, SIGUSR1, sigaction } from '../../../src/user/libsignal.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface FifoArgs {
  /** The end that is interrupted. */
  end: 'reader' | 'writer'
  signals: number
  /** Does the kernel begin the open anew by itself? */
  restart: boolean
  broken?: 'queue' | 'count'
}

class result extends Struct {
  declare ended: number
  declare opener: number
  declare ready: number
  declare opened: number
  declare interrupted: number
  declare handled: number
  declare bytes: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('fifo_result', result, {
  ended: word,
  opener: word, // its pid
  ready: word, // it is about to open: signals may come, and the other end
  opened: word, // its end is open
  interrupted: word,
  handled: word,
  bytes: word,
  wrong: word,
})
const r = DEFINE_STATIC('fifo_result', RESULT)
const at = (field: 'ended' | 'ready' | 'opened'): number => r.addr + RESULT.offset(field)
const PATH = '/tmp/fifo'
/** Looks of who waits for another process: some ten thousand steps, a whole run is less. */
const PATIENCE = 1000
const BROKEN_WAIT = 0x77
const args_of: { args: FifoArgs } = { args: { end: 'reader', signals: 0, restart: false } }

/** @returns false: it does not come any more */
function* until(addr: number, value: number): Generator<void, boolean, void> {
  for (let n = 0; load(addr) < value; n++) {
    if (n === PATIENCE) return false
    yield* sched_yield()
  }
  return true
}
function* pipe_of(fd: number): Generator<void, pipe_inode, void> {
  const filp = fget(fd)!
  const pipe = PIPE.ref(filp.private_data)
  fput_test(filp)
  return pipe
}

/** What fifo_open does for a reader, but that it looks for the writer before it is on the queue. */
function* broken_open(path: number): Libc {
  const fd = yield* open(path, O_RDONLY | O_NONBLOCK)
  const filp = fget(fd)!
  file_op(filp).ioctl = function* (file) {
    const pipe = PIPE.ref(file.private_data)
    for (;;) {
      yield* down(pipe.i_sem)
      const alone = pipe.writers === 0
      up(pipe.i_sem)
      store(at('ready'), 1)
      if (!alone) return 0
      const wait = begin_wait()!
      prepare_to_wait(pipe.wait, wait, TASK_INTERRUPTIBLE)
      yield* schedule()
      finish_wait(pipe.wait, wait)
      if (signal_pending(current())) return -ERESTARTSYS
    }
  }
  fput_test(filp)
  const err = yield* ioctl(fd, BROKEN_WAIT, 0)
  if (err === 0) {
    yield* fcntl(fd, F_SETFL, 0)
    return fd
  }
  yield* close(fd)
  return err
}

/** The byte from the one end to the other. */
function* transfer(fd: number, writes: boolean): Libc {
  const buf = malloc(4)
  for (;;) {
    const n = writes ? yield* write(fd, buf, 1) : yield* read(fd, buf, 1)
    if (n === -EINTR) continue
    if (n !== 1) r.wrong++
    else if (!writes) r.bytes++
    return yield* close(fd)
  }
}
const flags = (writes: boolean): number => (writes ? O_WRONLY : O_RDONLY)
const opener_writes = (): boolean => args_of.args.end === 'writer'

const opener_sym = symbol('test_fifo_opener', function* (): Libc {
  const { restart, broken } = args_of.args
  const path = string(PATH)
  yield* sigaction(
    SIGUSR1,
    function* () {
      r.handled++
    },
    restart ? SA_RESTART : 0,
  )
  if ((yield* mkfifo(path)) !== 0) r.wrong++
  if (broken !== 'queue') store(at('ready'), 1) // that one does when it has looked
  let fd = -EINTR
  while (fd === -EINTR) {
    fd = broken === 'queue' ? yield* broken_open(path) : yield* open(path, flags(opener_writes()))
    if (fd !== -EINTR) break
    r.interrupted++
    if (broken === 'count') yield* open(path, O_RDONLY | O_NONBLOCK)
  }
  if (fd < 0) r.wrong++
  store(at('opened'), 1)
  yield* transfer(fd, opener_writes())
  if (!(yield* until(at('ended'), 2))) return 0
  // By an end of each kind that never waits: nobody else has one.
  const both = yield* open(path, O_RDWR)
  const pipe = yield* pipe_of(both)
  yield* down(pipe.i_sem)
  if (pipe.readers !== 1 || pipe.writers !== 1 || pipe.waiting_writers !== 0) r.wrong++
  up(pipe.i_sem)
  yield* close(both)
  yield* unlink(path)
  fetch_add(at('ended'), 1)
  power_down(HALTING)
  return 0
})

const partner_sym = symbol('test_fifo_partner', function* (): Libc {
  if (!(yield* until(at('ready'), 1))) return 0
  const fd = yield* open(string(PATH), flags(!opener_writes()))
  if (fd < 0) r.wrong++
  // Nothing but the open has woken the other end yet.
  if (!(yield* until(at('opened'), 1))) return 0
  yield* transfer(fd, !opener_writes())
  fetch_add(at('ended'), 1)
  return 0
})
const signaller_sym = symbol('test_fifo_signaller', function* (): Libc {
  if (!(yield* until(at('ready'), 1))) return 0
  for (let k = 0; k < args_of.args.signals; k++) {
    if ((yield* kill(r.opener, SIGUSR1)) !== 0) r.wrong++
    yield* sched_yield()
  }
  fetch_add(at('ended'), 1)
  return 0
})

export function setup(args: FifoArgs): FifoArgs {
  power_on(2, { rx_arch: 2, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  const begin = (program: Sym<Program>, cpu: number): number => run_program('test', program, 0, { cpu })!.pid
  r.opener = begin(opener_sym, 0)
  // The signals come first: whom the last one has interrupted only the other end can wake.
  for (const program of args.signals > 0 ? [signaller_sym, partner_sym] : [partner_sym, signaller_sym])
    begin(program, 1)
  return args
}
export function prepare(args: FifoArgs): void {
  args_of.args = args
  secondary()
}
const clock = (): void => clock_chip(1)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => (r.interrupted > 0 ? 'interrupted' : r.handled > 0 ? 'signalled' : 'undisturbed')

export function invariant(): void {
  if (r.ended !== 3 || r.wrong !== 0 || r.bytes !== 1)
    throw new Error(`${r.ended} ended, ${r.bytes} bytes came, ${r.wrong} wrong`)
  nothing_leaked()
}
