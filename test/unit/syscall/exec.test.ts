/** Programs by name: their arguments, the console that they find open, and how the host sees that they ended. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { expect, test } from 'vitest'
import { O_NONBLOCK } from '../../../src/lib/fcntl.js'
import { CONSOLE_CHUNK, CONSOLE_RING, MAX_ARG_BYTES } from '../../../src/lib/limits.js'
import { current } from '../../../src/sched/sched.js'
import { send_sig } from '../../../src/sched/signal.js'
import type { task_struct } from '../../../src/sched/task.js'
import { exec, process_exit_code, register_program } from '../../../src/syscall/exec.js'
import {
  close,
  dup,
  fcntl,
  getpid,
  getuid,
  type Libc,
  load32,
  malloc,
  mem,
  read,
  syscall,
  write,
} from '../../../src/user/libc.js'
import { on_signals, SIGALRM } from '../../../src/user/libsignal.js'
import {
  arguments_of,
  c_string,
  getopt,
  inet_aton,
  inet_ntoa,
  perror,
  printf,
  strtol,
} from '../../../src/user/stdio.js'
import { console_reader, sh } from '../../helpers/console.js'
import { Script } from '../../helpers/script.js'

const s = new Script({ ports: [], config: { user_procs: 3 } })
const reader = console_reader
function program(name: string, main: (args: string[]) => Libc): void {
  register_program(name, (argc, argv) => main(arguments_of(argc, argv)))
}

test('arguments arrive as they were given, empty ones and those beyond ASCII too', () => {
  let seen: unknown[] = []
  register_program('t_args', function* (argc, argv) {
    seen = [argc, c_string(load32(argv)), load32(argv + 4 * argc), arguments_of(argc, argv)]
    return malloc(4) % 8 // the heap begins behind them, aligned
  })
  const argv = ['t_args', '', 'a b', 'grüße']
  expect(sh(s, argv).code).toBe(0)
  expect(seen).toEqual([4, 't_args', 0, argv])
})

test('output is tagged with pid, process and descriptor, in order; a program that runs as somebody knows it', () => {
  const before = process_exit_code(0)
  expect(before).toBe(0)
  program('t_say', function* () {
    yield* printf('one ')
    yield* perror('two', -111)
    yield* printf(`uid ${yield* getuid()}`)
    return yield* getpid()
  })
  const said = sh(s, 't_say', { uid: 7 })
  expect(said.records.map(r => [r.fd, r.text, r.pid, r.process])).toEqual([
    [1, 'one ', said.code, 1],
    [2, 'two: Connection refused\n', said.code, 1],
    [1, 'uid 7', said.code, 1],
  ])
})

test('reading is the end of the file; a duplicate of descriptor 1 writes as 1; a closed one writes nothing', () => {
  program('t_fds', function* () {
    const nothing = yield* read(0, malloc(8), 8)
    const copy = yield* dup(1)
    yield* close(1)
    yield* write(copy, malloc(4), 4)
    const closed = yield* write(1, malloc(4), 4)
    const fault = yield* write(copy, 0x1000, 4)
    const ioctl = yield* syscall(54, copy, 0x5401, 0)
    return [nothing, copy, closed, fault, ioctl].join() === '0,3,-9,-14,-25' ? 0 : 1
  })
  const said = sh(s, 't_fds')
  expect([said.code, said.out]).toEqual([0, '\0\0\0\0'])
})

test('a writer sleeps while the console is full; the next tick after the host took it out wakes it, and nothing is lost', () => {
  const total = 3 * CONSOLE_RING
  program('t_much', function* () {
    const buf = malloc(total)
    for (let k = 0; k < total; k++) mem(buf + k, 1)[0] = (k * 7 + (k >> 8)) & 255
    return (yield* write(1, buf, total)) === total ? 0 : 1
  })
  const index = exec(['t_much'])
  s.pass(5)
  expect(process_exit_code(index)).toBeNull()
  const got: number[] = []
  let largest = 0
  for (let k = 0; k < 20 && process_exit_code(index) === null; k++) {
    for (const r of reader().drain()) {
      got.push(...r.bytes)
      largest = Math.max(largest, r.bytes.length)
    }
    s.pass(2)
  }
  for (const r of reader().drain()) got.push(...r.bytes)
  expect(process_exit_code(index)).toBe(0)
  expect(largest).toBe(CONSOLE_CHUNK)
  expect(got.length).toBe(total)
  expect(got.every((b, k) => b === ((k * 7 + (k >> 8)) & 255))).toBe(true)
})

test('a full console: EAGAIN for who does not wait, EINTR or a part for whom a signal ends', () => {
  const fill = (then: (buf: number, n: number) => Libc): Libc =>
    (function* (): Libc {
      const buf = malloc(2 * CONSOLE_RING)
      yield* fcntl(1, 4, O_NONBLOCK)
      const n = yield* write(1, buf, 2 * CONSOLE_RING)
      return yield* then(buf, n)
    })()
  program('t_full', () =>
    fill(function* (buf, n) {
      const again = yield* write(1, buf, CONSOLE_CHUNK)
      return n > CONSOLE_RING / 2 && n < CONSOLE_RING && again === -11 ? 0 : 1
    }),
  )
  expect(sh(s, 't_full').code).toBe(0)
  let got = 0
  let me: task_struct | null = null
  program('t_signal', () =>
    fill(function* (buf) {
      yield* fcntl(1, 4, 0)
      yield* on_signals(SIGALRM)
      me = current()
      got = yield* write(1, buf, CONSOLE_CHUNK)
      return 0
    }),
  )
  const index = exec(['t_signal'])
  s.pass(3)
  expect(process_exit_code(index)).toBeNull()
  send_sig(SIGALRM, me!)
  s.pass(1)
  expect([process_exit_code(index), got]).toEqual([0, -4])
  reader().drain()
})

test('a delay is kept', () => {
  const index = exec(['echo', 'late'], { delayMs: 20 })
  s.pass(18)
  expect([process_exit_code(index), reader().drain()]).toEqual([null, []])
  s.pass(5)
  expect([
    process_exit_code(index),
    reader()
      .drain()
      .map(r => r.text),
  ]).toEqual([0, ['late\n']])
})

test('what cannot be started', () => {
  expect(exec(['nothing'])).toBe(-2)
  expect(exec([])).toBe(-2)
  expect(exec(['echo'], { cpu: 1 })).toBe(-22)
  expect(exec(['echo'], { delayMs: -1 })).toBe(-22)
  expect(exec(['echo', 'x'.repeat(MAX_ARG_BYTES)])).toBe(-7)
  const waiting = [1, 2, 3].map(() => exec(['echo'], { delayMs: 5 }))
  expect(exec(['echo'])).toBe(-12)
  s.pass(10)
  expect(waiting.map(process_exit_code)).toEqual([0, 0, 0])
  expect(sh(s, 'echo again').out).toBe('again\n')
})

test('getopt, strtol and inet_aton are as in C', () => {
  const o = getopt(['x', '-nc3', '-s', '5', '--', '-q'], 'nc:s:q')
  expect([o.has('n'), o.get('c'), o.get('s'), o.has('q'), o.rest, o.wrong]).toEqual([true, '3', '5', false, ['-q'], ''])
  expect(getopt(['x', 'a', '-n'], 'n').rest).toEqual(['a', '-n'])
  expect(getopt(['x', '-z'], 'n').wrong).toBe("invalid option -- 'z'")
  expect(getopt(['x', '-c'], 'c:').wrong).toBe("option requires an argument -- 'c'")
  expect(['12', '-7', '0x1f', '017', '1x', '', '08'].map(strtol)).toEqual([12, -7, 31, 15, null, null, 8])
  expect(
    ['10.1.2.3', '10.1', '127.0.0.256', '1.2.3.4.5', 'x', '0x7f.1', '255.255.255.255'].map(t => {
      const a = inet_aton(t)
      return a === null ? null : inet_ntoa(a)
    }),
  ).toEqual(['10.1.2.3', '10.0.0.1', null, null, null, '127.0.0.1', '255.255.255.255'])
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
