/** input.ts - reads a whole input file, pipe or terminal, in pieces: so that a Ctrl-C is heard meanwhile. */
import { closeSync, constants, createReadStream, fstatSync, openSync, read } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { errnoText, UsageError } from './errors.js'

/** More would not fit beside the machine anyway. */
const MAX_INPUT = 2 * 2 ** 30
const PIECE = 1 << 24
const STDIN = ['/dev/stdin', '/dev/fd/0', '/proc/self/fd/0']

const readSome = promisify(read)

function tooLarge(path: string, max: number): UsageError {
  const size = max >= 2 ** 30 ? `${max / 2 ** 30} GiB` : `${max} bytes`
  return new UsageError(`cannot read ${path}: it is larger than ${size}`)
}

async function readPlain(fd: number, path: string, max: number, signal?: AbortSignal): Promise<Buffer> {
  try {
    const { size } = fstatSync(fd)
    if (size > max) throw tooLarge(path, max)
    const bytes = Buffer.allocUnsafeSlow(size)
    let at = 0
    while (at < size) {
      signal?.throwIfAborted()
      const { bytesRead } = await readSome(fd, bytes, at, Math.min(PIECE, size - at), at)
      if (bytesRead === 0) break // it has become shorter
      at += bytesRead
    }
    return bytes.subarray(0, at)
  } finally {
    closeSync(fd)
  }
}

/** What comes in pieces and ends some time, or never. */
async function readStream(stream: Readable, path: string, max: number, signal?: AbortSignal): Promise<Buffer> {
  const stop = (): void => void stream.destroy(new Error('aborted'))
  signal?.addEventListener('abort', stop)
  const pieces: Buffer[] = []
  let total = 0
  try {
    for await (const piece of stream) {
      pieces.push(piece as Buffer)
      total += (piece as Buffer).length
      if (total > max) throw tooLarge(path, max)
    }
  } finally {
    signal?.removeEventListener('abort', stop)
    stream.destroy()
  }
  return Buffer.concat(pieces)
}

/** A pipe is opened without waiting for its writer: a thread that waits in open() could not be called off. */
async function readAny(path: string, max: number, signal?: AbortSignal): Promise<Buffer> {
  if (STDIN.includes(path)) return readStream(process.stdin, path, max, signal)
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const s = fstatSync(fd)
  if (s.isFile()) return readPlain(fd, path, max, signal)
  const stream = s.isFIFO() ? new Socket({ fd, readable: true, writable: false }) : createReadStream(path, { fd })
  return readStream(stream, path, max, signal)
}

/** readInput - all bytes of an input. Throws a UsageError of one line, or what the signal was aborted with. */
export async function readInput(path: string, signal?: AbortSignal, max = MAX_INPUT): Promise<Buffer> {
  signal?.throwIfAborted()
  try {
    return await readAny(path, max, signal)
  } catch (error) {
    signal?.throwIfAborted()
    if (error instanceof UsageError) throw error
    throw new UsageError(`cannot read ${path}: ${errnoText(error)}`, { cause: error })
  }
}
