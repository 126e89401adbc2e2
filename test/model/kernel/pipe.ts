/**
 * A process on CPU 1 writes to a FIFO what one on CPU 0 reads: so much at once that each waits for the other in turn, then byte by
 * byte, each time when the reader is about to wait. Every byte must come, in its place. The broken twin looks at the pipe
 * before it is on the queue, and is not woken.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { fget, file_op, type file_operations, fput_test } from '../../../src/fs/file.js'
import { PIPE } from '../../../src/fs/pipe.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { ENOENT } from '../../../src/lib/errno.js'
import { schedule } from '../../../src/sched/sched.js'
import { down, up } from '../../../src/sched/semaphore.js'
import { TASK_INTERRUPTIBLE } from '../../../src/sched/task.js'
import { begin_wait, finish_wait, prepare_to_wait } from '../../../src/sched/wait.js'
import { run_program } from '../../../src/syscall/process.js'
import { close, type Libc, malloc, mem, read, sched_yield, string, unlink, write } from '../../../src/user/libc.js'
import { mkfifo, O_RDONLY, O_WRONLY, open } from '../../../src/user/libc_file.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface PipeArgs {
  /** Bytes of the one large write, and of each read of them. */
  bulk: number
  chunk: number
  /** Bytes that are written one by one. */
  single: number
  broken?: boolean
}

class result extends Struct {
  declare ended: number
  declare asked: number
  declare taken: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('pipe_result', result, { ended: word, asked: word, taken: word, wrong: word })
const r = DEFINE_STATIC('pipe_result', RESULT)
const ENDED = r.addr
const ASKED = r.addr + RESULT.offset('asked')
const PATH = '/tmp/fifo'
/** Looks of the writer: some ten thousand steps, a whole run is less. */
const PATIENCE = 1000
/** Tables of operations that are broken already, on this CPU. */
const broken_ops = new Set<file_operations>()
const args_of: { args: PipeArgs } = { args: { bulk: 0, chunk: 1, single: 0 } }

function end(): number {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}
const byte = (k: number): number => (k * 7 + (k >> 8)) & 255

/** From now on reads look first, and enter the queue afterwards. */
function break_read(fd: number): void {
  const filp = fget(fd)!
  const ops: file_operations = file_op(filp)
  fput_test(filp)
  if (broken_ops.has(ops)) return
  broken_ops.add(ops)
  const sound = ops.read
  ops.read = function* (file, buf, count) {
    const pipe = PIPE.ref(file.private_data)
    for (;;) {
      yield* down(pipe.i_sem)
      const empty = pipe.nrbufs === 0 && pipe.writers > 0
      up(pipe.i_sem)
      if (!empty) return yield* sound(file, buf, count)
      const wait = begin_wait()!
      prepare_to_wait(pipe.wait, wait, TASK_INTERRUPTIBLE)
      yield* schedule()
      finish_wait(pipe.wait, wait)
    }
  }
}

const writer_sym = symbol('test_pipe_writer', function* (): Libc {
  const { bulk, single } = args_of.args
  let fd = -ENOENT
  for (const path = string(PATH); fd === -ENOENT; ) {
    fd = yield* open(path, O_WRONLY)
    if (fd === -ENOENT) yield* sched_yield()
  }
  const buf = malloc(bulk + single + 1)
  mem(buf, bulk + single).forEach((_, k, all) => {
    all[k] = byte(k)
  })
  if (bulk > 0 && (yield* write(fd, buf, bulk)) !== bulk) r.wrong++
  for (let k = 0; k < single; k++) {
    for (let n = 0; load(ASKED) <= k; n++) {
      if (n === PATIENCE) return 0 // the reader has not got the last one: nobody wakes it any more
      yield* sched_yield()
    }
    if ((yield* write(fd, buf + bulk + k, 1)) !== 1) r.wrong++
  }
  yield* close(fd)
  return end()
})
const reader_sym = symbol('test_pipe_reader', function* (): Libc {
  const { bulk, chunk, single, broken } = args_of.args
  if ((yield* mkfifo(string(PATH))) !== 0) r.wrong++
  const fd = yield* open(string(PATH), O_RDONLY)
  const buf = malloc(chunk)
  if (broken === true) break_read(fd)
  for (;;) {
    if (r.taken >= bulk) store(ASKED, r.taken - bulk + 1)
    const n = yield* read(fd, buf, chunk)
    if (n <= 0) {
      if (n < 0) r.wrong++
      break
    }
    mem(buf, n).forEach((b, k) => {
      if (b !== byte(r.taken + k)) r.wrong++
    })
    r.taken += n
  }
  if (r.taken !== bulk + single) r.wrong++
  yield* close(fd)
  yield* unlink(string(PATH))
  return end()
})

export function setup(args: PipeArgs): PipeArgs {
  power_on(2, { rx_arch: 2, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('reader', reader_sym, 0, { cpu: 0 })
  run_program('writer', writer_sym, 0, { cpu: 1 })
  return args
}
export function prepare(args: PipeArgs): void {
  args_of.args = args
  secondary()
}
const clock = (): void => clock_chip(1)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.taken} bytes`

export function invariant(args: PipeArgs): void {
  if (r.ended !== 2 || r.wrong !== 0 || r.taken !== args.bulk + args.single)
    throw new Error(`${r.ended} ended, ${r.taken} bytes came, ${r.wrong} wrong`)
  nothing_leaked()
}
