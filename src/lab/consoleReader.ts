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

/** A file that a program created, as far as it was written. */
export interface HostFile {
  name: string
  bytes: Uint8Array
}

/** Of a record: bytes, pid, process, descriptor; of a file: its number as process, and FILE as descriptor. */
const HEADER = 16
const FILE = 3
const ENDED = 2
/** Bytes of a record of the table of processes. */
const PROCESS = 12

export class ConsoleReader {
  private readonly ring: number
  private readonly head: number
  private readonly tail: number
  private readonly records: number
  /** What was taken out of the ring and not yet asked for; and files by number: name and pieces. */
  private said: ConsoleRecord[] = []
  private readonly written = new Map<number, { name: string; pieces: Uint8Array[] }>()

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

  /** Takes everything out of the ring; there is room for more afterwards. */
  private take(): void {
    const { i32 } = this.ram
    const head = Atomics.load(i32, this.head)
    let at = i32[this.tail]!
    while (at !== head) {
      const len = this.word(at)
      const bytes = new Uint8Array(len)
      for (let k = 0; k < len; k++) bytes[k] = this.byte(at + HEADER + k)
      this.sort({ pid: this.word(at + 4), process: this.word(at + 8), fd: this.word(at + 12), bytes })
      at = (at + HEADER + ((len + 3) & ~3)) | 0
    }
    Atomics.store(i32, this.tail, at)
  }
  private sort(record: Omit<ConsoleRecord, 'text'>): void {
    const text = (): string => Buffer.from(record.bytes).toString('utf8')
    if (record.fd !== FILE) {
      this.said.push({ ...record, text: text() })
      return
    }
    const file = this.written.get(record.process)
    if (file === undefined) this.written.set(record.process, { name: text(), pieces: [] })
    else file.pieces.push(record.bytes)
  }

  /** All that was written to the console since the last call. */
  drain(): ConsoleRecord[] {
    this.take()
    return this.said.splice(0)
  }

  /** Files that programs created, as they are now; of two of one name the later one, as if it had been emptied. */
  files(): HostFile[] {
    this.take()
    const byName = new Map([...this.written.values()].map(f => [f.name, f.pieces]))
    return [...byName].map(([name, pieces]) => ({ name, bytes: new Uint8Array(Buffer.concat(pieces)) }))
  }

  /** Of a process by its place in the configuration; null: it has not ended. */
  exitCode(index: number): number | null {
    const at = (this.records + index * PROCESS) >> 2
    return Atomics.load(this.ram.i32, at) === ENDED ? this.ram.i32[at + 2]! : null
  }
}
