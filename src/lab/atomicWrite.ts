/**
 * atomicWrite.ts - files that appear under their name whole or not at all.
 *
 * Everything goes into a temporary file beside the target, which a commit flushes and renames. A process that ends
 * before it has committed, by an error, an exit or a Ctrl-C, takes its temporary files away.
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { errnoText, RunError, UsageError } from './errors.js'

const open = new Set<AtomicFile>()
const counter = { n: 0 }

/** Something that is written to, such as the body of a device or a pipe: a rename would replace it by a plain file. */
function isSpecial(path: string): boolean {
  const s = statSync(path, { throwIfNoEntry: false })
  return s !== undefined && !s.isFile() && !s.isDirectory()
}

/** A disk that gives out is not the fault of the command line. */
function isExhausted(error: unknown): boolean {
  return error instanceof Error && 'code' in error && ['ENOSPC', 'EDQUOT', 'EIO'].includes(String(error.code))
}

/** AtomicFile - one output file in the making. Throws LabErrors that name the target. */
export class AtomicFile {
  readonly #tmp: string
  #fd: number

  /** Opens the temporary file; a target that cannot be written fails here, before the work is done. */
  constructor(readonly path: string) {
    const s = statSync(path, { throwIfNoEntry: false })
    if (s?.isDirectory()) throw new UsageError(`cannot write ${path}: is a folder`)
    counter.n++
    this.#tmp = isSpecial(path) ? path : join(dirname(path), `.${basename(path)}.${process.pid}-${counter.n}.tmp`)
    try {
      this.#fd = openSync(this.#tmp, 'w')
    } catch (error) {
      const Failure = isExhausted(error) ? RunError : UsageError
      throw new Failure(`cannot write ${path}: ${errnoText(error)}`, { cause: error })
    }
    if (open.size === 0) process.on('exit', discardAll)
    open.add(this)
  }

  /** Appends; on failure the temporary file is taken away. */
  write(data: string | Uint8Array): void {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    this.#try(() => {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at)
    })
  }

  /** Puts the file under its name. */
  commit(): void {
    this.#try(() => {
      if (this.#tmp !== this.path) fsyncSync(this.#fd)
      closeSync(this.#fd)
      this.#fd = -1
      if (this.#tmp !== this.path) renameSync(this.#tmp, this.path)
    })
    forget(this)
  }

  /** Takes the temporary file away; the target stays as it was. May be called at any time, also after a commit. */
  discard(): void {
    if (!open.has(this)) return
    forget(this)
    if (this.#fd >= 0) closeSync(this.#fd)
    if (this.#tmp !== this.path) rmSync(this.#tmp, { force: true })
  }

  #try(step: () => void): void {
    try {
      step()
    } catch (error) {
      this.discard()
      throw new RunError(`cannot write ${this.path}: ${errnoText(error)}`, { cause: error })
    }
  }
}

function forget(file: AtomicFile): void {
  open.delete(file)
  if (open.size === 0) process.off('exit', discardAll)
}

function discardAll(): void {
  for (const file of [...open]) file.discard()
}

/** writeFileAtomic - a whole file in one go. */
export function writeFileAtomic(path: string, data: string | Uint8Array): void {
  const file = new AtomicFile(path)
  file.write(data)
  file.commit()
}
