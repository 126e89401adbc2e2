/** kill.ts - sends a signal to processes, by their numbers. */

import type { Libc } from './libc.js'
import { kill, NSIG, SIGTERM } from './libsignal.js'
import { arguments_of, fprintf, perror, STDERR, strtol } from './stdio.js'

const NAMES: Readonly<Record<string, number>> = {
  ...{
    HUP: 1,
    INT: 2,
    QUIT: 3,
    KILL: 9,
    USR1: 10,
    SEGV: 11,
    USR2: 12,
    PIPE: 13,
    ALRM: 14,
    TERM: 15,
    CHLD: 17,
    CONT: 18,
  },
  ...{ STOP: 19, TSTP: 20, TTIN: 21, TTOU: 22, URG: 23, VTALRM: 26, PROF: 27, WINCH: 28, IO: 29 },
}

/** A signal by its number, or by its name with or without SIG; null: there is none. */
function signal_of(word: string): number | null {
  const n = strtol(word)
  if (n !== null) return n >= 0 && n <= NSIG ? n : null
  return NAMES[word.replace(/^SIG/, '')] ?? null
}

/** kill - @returns 0: all were told, 1: one was not, 2: wrong usage */
export function* kill_main(argc: number, argv: number): Libc {
  const words = arguments_of(argc, argv).slice(1)
  const first = words[0] ?? ''
  const given = /^-[A-Z\d]/.test(first)
  const sig = given ? signal_of(first.slice(1)) : SIGTERM
  const pids = (given ? words.slice(1) : words).map(strtol)
  if (sig === null || pids.length === 0 || pids.includes(null)) {
    yield* fprintf(STDERR, 'usage: kill [-signal] pid ...\n')
    return 2
  }
  let code = 0
  for (const pid of pids as number[]) {
    const err = yield* kill(pid, sig)
    if (err === 0) continue
    code = 1
    yield* perror(`kill: ${pid}`, err)
  }
  return code
}
