/** console.ts - programs with arguments on a machine of one CPU, and what they write. */
import { boot } from '../../src/arch/boot.js'
import { system_map } from '../../src/init/main.js'
import { ConsoleReader, type ConsoleRecord } from '../../src/lab/consoleReader.js'
import { RamReader } from '../../src/lab/ramReader.js'
import { type ExecOptions, exec, process_exit_code } from '../../src/syscall/exec.js'
import type { Script } from './script.js'

/** console_reader - of this machine; made when all programs are registered. */
export function console_reader(): ConsoleReader {
  return new ConsoleReader(new RamReader(boot.memory, system_map()))
}

export interface Said {
  code: number
  out: string
  err: string
  records: ConsoleRecord[]
}

/** What is at the other end of the wire of port 0: the answers to a frame. */
export type Wire = (frame: Uint8Array) => Uint8Array[]

/** sh - run a program to its end, which comes within `ms`. */
export function sh(
  s: Script,
  line: string | string[],
  options: ExecOptions = {},
  ms = 10_000,
  wire: Wire = () => [],
): Said {
  const argv = typeof line === 'string' ? line.split(' ') : line
  const index = exec(argv, options)
  if (index < 0) throw new Error(`${argv[0]}: error ${-index}`)
  const reader = console_reader()
  const records: ConsoleRecord[] = []
  for (let k = 0; k < ms && process_exit_code(index) === null; k++) {
    s.pass(1)
    const answers = (s.out()[0] ?? []).flatMap(wire)
    for (const frame of answers) s.solo.board.nics[0]!.arrive(frame)
    records.push(...reader.drain())
  }
  const code = process_exit_code(index)
  if (code === null) throw new Error(`${argv[0]} hangs; it said: ${records.map(r => r.text).join('')}`)
  records.push(...reader.drain())
  const said = (fd: number): string =>
    records
      .filter(r => r.process === index && r.fd === fd)
      .map(r => r.text)
      .join('')
  return { code, out: said(1), err: said(2), records }
}
