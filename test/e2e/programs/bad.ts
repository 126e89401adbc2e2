/** bad.ts - programs that fail, and one that takes all the CPU it gets. Loaded beside the kernel (MachineConfig.programs). */
import { register_program } from '../../../src/syscall/exec.js'
import { getpid, gettimeofday, type Libc, load32, socket, store32 } from '../../../src/user/libc.js'
import { getrusage, nice, RUSAGE_SELF } from '../../../src/user/libresource.js'
import { SIGSEGV, signal } from '../../../src/user/libsignal.js'
import { arguments_of, printf, puts } from '../../../src/user/stdio.js'

const ways: Readonly<Record<string, () => Libc>> = {
  *load() {
    return load32(16)
  },
  *store() {
    yield* socket(2, 2, 0) // is closed for it
    store32(0xc0000000, 1)
    return 0
  },
  *type() {
    const nothing = null as unknown as { x: number }
    return nothing.x
  },
  *throw() {
    throw new Error('two\nlines')
  },
  *handled() {
    yield* signal(SIGSEGV, function* (sig) {
      yield* puts(`handler of ${sig}`)
    })
    return load32(0)
  },
  *twice() {
    yield* signal(SIGSEGV, function* () {
      yield* puts('once')
      load32(4)
    })
    return load32(0)
  },
  *caught() {
    try {
      load32(0)
    } catch {
      yield* puts('caught')
    }
    return 0
  },
}

function* crash_main(argc: number, argv: number): Libc {
  const [way = ''] = arguments_of(argc, argv).slice(1)
  yield* puts(`about to ${way}`)
  return yield* ways[way]!()
}

/** greedy NICE MS: takes the CPU until so much time has gone by, then says how much it got. */
function* greedy_main(argc: number, argv: number): Libc {
  const [by = '0', ms = '0'] = arguments_of(argc, argv).slice(1)
  yield* nice(Number(by))
  while ((yield* gettimeofday()) < Number(ms) * 1000) for (let k = 0; k < 10; k++) yield* getpid()
  const usage = yield* getrusage(RUSAGE_SELF)
  yield* printf(JSON.stringify(usage))
  return 0
}

export function main(): void {}
register_program('crash', crash_main)
register_program('greedy', greedy_main)
