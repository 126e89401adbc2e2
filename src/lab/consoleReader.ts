/** consoleReader.ts - takes out of a machine's RAM what its programs write, and how they ended, while it runs. */
import { CONSOLE_RING } from '../lib/limits.js'
import type { RamReader } from './ramReader.js'

/** One write of a program, or a part of a long one. */
export interface ConsoleRecord {
  pid: number
  /** Place in the machine's configuration of processes. */
  process: number
  /** Descriptor that the process found open at its start: 1 for output, 2 for complaints. */
  fd: number
  text: string
  bytes: Uint8Array
}

/** Of a record: bytes, pid, process, descriptor. */
const HEADER = 16
const ENDED = 2
/** Bytes of a record of the table of processes. */
const PROCESS = 12

export class ConsoleReader {
  private readonly ring: number
  private readonly head: number
  private readonly tail: number
  private readonly records: number

  constructor(private readonly ram: RamReader) {
    this.ring = ram.address('console', 'ring')
    this.head = ram.address('console', 'head') >> 2
    this.tail = ram.address('console', 'tail') >> 2
    this.records = ram.address('process_table', 'records')
  }

  private byte(at: number): number {
    return this.ram.u8[this.ring + (at & (CONSOLE_RING - 1))]!
  }
  private word(at: number): number {
    return this.ram.i32[(this.ring + (at & (CONSOLE_RING - 1))) >> 2]!
  }

  /** All that was written and not taken out; there is room for more afterwards. */
  drain(): ConsoleRecord[] {
    const { i32 } = this.ram
    const out: ConsoleRecord[] = []
    const head = Atomics.load(i32, this.head)
    let at = i32[this.tail]!
    while (at !== head) {
      const len = this.word(at)
      const bytes = new Uint8Array(len)
      for (let k = 0; k < len; k++) bytes[k] = this.byte(at + HEADER + k)
      const text = Buffer.from(bytes).toString('utf8')
      out.push({ pid: this.word(at + 4), process: this.word(at + 8), fd: this.word(at + 12), text, bytes })
      at = (at + HEADER + ((len + 3) & ~3)) | 0
    }
    Atomics.store(i32, this.tail, at)
    return out
  }

  /** Of a process by its place in the configuration; null: it has not ended. */
  exitCode(index: number): number | null {
    const at = (this.records + index * PROCESS) >> 2
    return Atomics.load(this.ram.i32, at) === ENDED ? this.ram.i32[at + 2]! : null
  }
}
