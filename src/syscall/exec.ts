/**
 * exec.ts - programs by name, with arguments and a console: what fork, execve and init's open of /dev/console do elsewhere. And
 * the table of such processes, in which the host sees who has ended, and how.
 *
 * Lock charter
 *   processes.count is raised by init alone. A record is filled before its process runs, and its end is written by the CPU that
 *   the process belongs to: the code first, then the state, which the host reads first.
 */
import { bytes, type Layout, layout, Struct, word } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { call, type Sym, symbol } from '../abi/symbol.js'
import { load, store } from '../arch/atomic.js'
import { num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { console_open } from '../drivers/char/console.js'
import { fd_install_first, type file, release_unused, task_files } from '../fs/file.js'
import { nanosleep } from '../irq/timer.js'
import { E2BIG, EINVAL, ENOENT, ENOMEM } from '../lib/errno.js'
import { MAX_ARG_BYTES, MAX_PROCESSES } from '../lib/limits.js'
import { task_mm, USER_BASE } from '../sched/mm.js'
import { current, sched_hooks } from '../sched/sched.js'
import type { task_struct } from '../sched/task.js'
import { syscall_enter, syscall_exit } from './entry.js'
import { run_program } from './process.js'

const i32 = RAM.i32
const u8 = RAM.u8
const dv = RAM.dv

/** main of C: `argv` is the address of an array of addresses, with NULL behind the last. @returns the exit code */
export type Main = (argc: number, argv: number) => Generator<void, number, void>

/** Programs by name: the text of the kernel, the same on every CPU. */
const programs = new Map<string, Sym<Main>>()

/** register_program - when its module is loaded, in the same order on every CPU. */
export function register_program(name: string, main: Main): void {
  programs.set(name, symbol(`main_${name}`, main))
}
export function program_names(): string[] {
  return [...programs.keys()]
}

// ---- the table ------------------------------------------------------------------------------------------------------

const PROCESS_RUNS = 1
const PROCESS_ENDED = 2
/** Words of a record: state, pid, exit code. */
const WORDS = 3

class process_table extends Struct {
  declare count: number
  declare records: number
}
const TABLE: Layout<process_table> = layout('process_table', process_table, {
  count: word,
  records: bytes(MAX_PROCESSES * WORDS * 4),
})
const processes = DEFINE_STATIC('process_table', TABLE)

function record(index: number): number {
  return processes.records + index * WORDS * 4
}

/** process_exit_code - or null: it has not ended. */
export function process_exit_code(index: number): number | null {
  return load(record(index)) === PROCESS_ENDED ? i32[(record(index) + 8) >> 2] : null
}

function report_exit(p: task_struct): void {
  const count = load(processes.addr)
  for (let k = 0; k < count; k++) {
    if (i32[(record(k) + 4) >> 2] !== p.pid) continue
    i32[(record(k) + 8) >> 2] = p.exit_code
    store(record(k), PROCESS_ENDED)
  }
}
const exit_before = sched_hooks.exit
sched_hooks.exit = p => {
  exit_before(p)
  report_exit(p)
}

// ---- exec -----------------------------------------------------------------------------------------------------------

export interface ExecOptions {
  cpu?: number
  uid?: number
  /** How long it waits before main() begins. */
  delayMs?: number
}

// what lies at the bottom of the program's memory: main, the delay, then argc and argv as on a stack of i386
const MAIN = 0
const DELAY = 4
const ARGC = 8
const ARGV = 12

/** Where the arguments end, and with them the bottom of the program's memory. */
function arg_bytes(args: Uint8Array[]): number {
  return args.reduce((sum, arg) => sum + arg.length + 1, ARGV + 4 * (args.length + 1))
}

/** copy_strings - main, delay and arguments into the memory of a program that does not run yet. */
function copy_strings(p: task_struct, main: Sym<Main>, delay_ms: number, args: Uint8Array[]): void {
  const mm = task_mm(p)!
  dv.setInt32(mm.base + MAIN, main, true)
  dv.setInt32(mm.base + DELAY, delay_ms, true)
  dv.setInt32(mm.base + ARGC, args.length, true)
  let at = ARGV + 4 * (args.length + 1)
  args.forEach((arg, k) => {
    dv.setInt32(mm.base + ARGV + 4 * k, USER_BASE + at, true)
    u8.set(arg, mm.base + at)
    at += arg.length + 1
  })
  mm.brk = (at + 7) & ~7
}

/** What such a process does first. */
function* exec_start(): Generator<void, number, void> {
  const base = task_mm(current())!.base
  const delay = dv.getInt32(base + DELAY, true)
  if (delay > 0) {
    syscall_enter()
    yield* nanosleep(delay * 1e6)
    syscall_exit()
  }
  const main = dv.getInt32(base + MAIN, true) as Sym<Main>
  return yield* call(main)(dv.getInt32(base + ARGC, true), USER_BASE + ARGV)
}
const exec_start_sym = symbol('exec_start', exec_start)

function open_consoles(index: number): file[] | null {
  const files = [0, 1, 2].flatMap(fd => console_open(index, fd) ?? [])
  if (files.length === 3) return files
  for (const filp of files) release_unused(filp)
  return null
}

/**
 * exec - a process that runs the program argv[0], with descriptors 0, 1 and 2 open on the console. @context process
 * @returns its index in the table of processes; -ENOENT: no such program, -EINVAL: no such CPU or a negative delay, -E2BIG,
 * -ENOMEM
 */
export function exec(argv: readonly string[], options: ExecOptions = {}): number {
  const main = programs.get(argv[0] ?? '')
  if (main === undefined) return -ENOENT
  const { cpu = 0, uid = 0, delayMs = 0 } = options
  if (cpu < 0 || cpu >= num_cpus() || delayMs < 0) return -EINVAL
  const utf8 = new TextEncoder()
  const args = argv.map(arg => utf8.encode(arg))
  if (arg_bytes(args) > MAX_ARG_BYTES) return -E2BIG
  const index = processes.count
  if (index === MAX_PROCESSES) return -ENOMEM
  const files = open_consoles(index)
  if (files === null) return -ENOMEM
  const p = run_program(argv[0]!, exec_start_sym, 0, { cpu, uid }, task => {
    copy_strings(task, main, delayMs, args)
    for (const filp of files) fd_install_first(task_files(task)!, filp)
    i32[(record(index) + 4) >> 2] = task.pid
    store(record(index), PROCESS_RUNS)
    store(processes.addr, index + 1)
  })
  if (p !== null) return index
  for (const filp of files) release_unused(filp)
  return -ENOMEM
}
