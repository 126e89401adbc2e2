/** stdio.ts - text out of programs and into them: printf, perror, the arguments of main, options, numbers and addresses. */
import { call_trace } from '../arch/cpu.js'
import { USER_MEM_SIZE } from '../lib/limits.js'
import { task_mm, USER_BASE } from '../sched/mm.js'
import { current } from '../sched/sched.js'
import { trap_hooks } from '../syscall/traps.js'
import { give_back, type Libc, load32, mem, sbrk, write } from './libc.js'

export const STDOUT = 1
export const STDERR = 2

trap_hooks.uncaught = function* (error) {
  const frames = call_trace(error).filter(line => !/ (mem|load32|store32) /.test(line))
  yield* fprintf(
    STDERR,
    `${error.name}: ${error.message}\n${frames
      .slice(0, 4)
      .map(line => `    ${line}\n`)
      .join('')}`,
  )
}

// ---- output ---------------------------------------------------------------------------------------------------------

/** A piece of memory for one call, as alloca has it: given back afterwards unless another thread took memory meanwhile. */
function* with_scratch(bytes: number, f: (at: number) => Libc): Libc {
  const at = sbrk(bytes)
  if (at === 0) return -12 // ENOMEM
  const mm = task_mm(current())!
  const top = mm.brk
  const ret = yield* f(at)
  if (mm.brk === top) give_back(at)
  return ret
}

/** Largest piece of text of one write. */
const PIECE = 4096

/** write_all - all bytes to a descriptor. @returns bytes, or a negative errno */
export function* write_all(fd: number, bytes: Uint8Array): Libc {
  for (let at = 0; at < bytes.length; at += PIECE) {
    const piece = bytes.subarray(at, at + PIECE)
    const err = yield* with_scratch(piece.length, function* (buf) {
      mem(buf, piece.length).set(piece)
      for (let done = 0; done < piece.length; ) {
        const n = yield* write(fd, buf + done, piece.length - done)
        if (n < 0) return n
        done += n
      }
      return 0
    })
    if (err < 0) return err
  }
  return bytes.length
}
/** fprintf - the text is a template. @returns bytes, or a negative errno */
export function fprintf(fd: number, text: string): Libc {
  return write_all(fd, new TextEncoder().encode(text))
}
export function printf(text: string): Libc {
  return fprintf(STDOUT, text)
}
export function puts(line: string): Libc {
  return fprintf(STDOUT, `${line}\n`)
}

const ERRORS: Record<number, string | undefined> = {
  1: 'Operation not permitted',
  2: 'No such file or directory',
  3: 'No such process',
  4: 'Interrupted system call',
  5: 'Input/output error',
  6: 'No such device or address',
  9: 'Bad file descriptor',
  11: 'Resource temporarily unavailable',
  12: 'Cannot allocate memory',
  13: 'Permission denied',
  14: 'Bad address',
  16: 'Device or resource busy',
  17: 'File exists',
  19: 'No such device',
  22: 'Invalid argument',
  23: 'Too many open files in system',
  24: 'Too many open files',
  25: 'Inappropriate ioctl for device',
  32: 'Broken pipe',
  36: 'File name too long',
  38: 'Function not implemented',
  64: 'Machine is not on the network',
  71: 'Protocol error',
  88: 'Socket operation on non-socket',
  89: 'Destination address required',
  90: 'Message too long',
  91: 'Protocol wrong type for socket',
  92: 'Protocol not available',
  93: 'Protocol not supported',
  94: 'Socket type not supported',
  95: 'Operation not supported',
  97: 'Address family not supported by protocol',
  98: 'Address already in use',
  99: 'Cannot assign requested address',
  100: 'Network is down',
  101: 'Network is unreachable',
  104: 'Connection reset by peer',
  105: 'No buffer space available',
  106: 'Transport endpoint is already connected',
  107: 'Transport endpoint is not connected',
  108: 'Cannot send after transport endpoint shutdown',
  110: 'Connection timed out',
  111: 'Connection refused',
  112: 'Host is down',
  113: 'No route to host',
}
/** strerror - of an errno, or of what a call returned. */
export function strerror(err: number): string {
  return ERRORS[Math.abs(err)] ?? `Unknown error ${Math.abs(err)}`
}
/** perror - the complaint about a call that returned `err`, on descriptor 2. */
export function perror(what: string, err: number): Libc {
  return fprintf(STDERR, `${what}: ${strerror(err)}\n`)
}

// ---- input ----------------------------------------------------------------------------------------------------------

/** c_string - the text at an address, up to the first 0. */
export function c_string(addr: number): string {
  const room = USER_BASE + USER_MEM_SIZE - addr
  const bytes = mem(addr, room)
  const end = bytes.indexOf(0)
  return new TextDecoder().decode(bytes.slice(0, end < 0 ? room : end))
}
/** arguments_of - main's, as text; the first is the program's name. */
export function arguments_of(argc: number, argv: number): string[] {
  return Array.from({ length: argc }, (_, k) => c_string(load32(argv + 4 * k)))
}

/** What getopt found: each option with its last value ('' if it takes none), and what is left. */
export interface Options {
  has(letter: string): boolean
  get(letter: string): string | undefined
  rest: string[]
  /** What is wrong, or ''. */
  wrong: string
}

/** getopt - `spec` as in C: the letters, those with a value followed by ':'. Options end at the first operand or at `--`. */
export function getopt(args: readonly string[], spec: string): Options {
  const found = new Map<string, string>()
  const end = (at: number, wrong = ''): Options => ({
    has: letter => found.has(letter),
    get: letter => found.get(letter),
    rest: args.slice(at),
    wrong,
  })
  for (let at = 1; at < args.length; at++) {
    const arg = args[at]!
    if (arg === '--') return end(at + 1)
    if (!arg.startsWith('-') || arg === '-') return end(at)
    for (let k = 1; k < arg.length; k++) {
      const letter = arg[k]!
      const place = letter === ':' ? -1 : spec.indexOf(letter)
      if (place < 0) return end(at, `invalid option -- '${letter}'`)
      if (spec[place + 1] !== ':') {
        found.set(letter, '')
        continue
      }
      const value = k + 1 < arg.length ? arg.slice(k + 1) : args[++at]
      if (value === undefined) return end(at, `option requires an argument -- '${letter}'`)
      found.set(letter, value)
      break
    }
  }
  return end(args.length)
}

/** strtol - a whole number, decimal, or by its 0x or 0; null: it is none. */
export function strtol(text: string): number | null {
  const m = /^\s*([+-]?)(0x[\da-f]+|\d+)$/i.exec(text)
  if (m === null) return null
  const digits = m[2]!
  const n = /^0[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number(digits)
  return m[1] === '-' ? -n : n
}
/** number_option - the option's number, `otherwise` if it is not given, null if it is none or not in the range. */
export function number_option(
  options: Options,
  letter: string,
  range: readonly [number, number],
  otherwise: number,
): number | null {
  const text = options.get(letter)
  if (text === undefined) return otherwise
  const n = strtol(text)
  return n === null || n < range[0] || n > range[1] ? null : n
}

/** inet_aton - an address of one to four parts, as C has them; null: it is none. */
export function inet_aton(text: string): number | null {
  const parts = text.split('.').map(part => (/^(0x[\da-f]+|\d+)$/i.test(part) ? strtol(part) : null))
  if (parts.length > 4 || parts.some(part => part === null)) return null
  const last = parts.pop()!
  if (parts.some(part => part! > 255) || last >= 2 ** (32 - 8 * parts.length)) return null
  return parts.reduce<number>((sum, part, k) => sum | (part! << (24 - 8 * k)), 0) | last
}
export function inet_ntoa(addr: number): string {
  return [24, 16, 8, 0].map(shift => (addr >>> shift) & 255).join('.')
}
