/**
 * atomicWrite.ts - files that appear under their name whole or not at all.
 *
 * Everything goes into a temporary file beside the target, which a commit flushes and renames. A process that ends
 * before it has committed, by an error, an exit or a Ctrl-C, takes its temporary files away.
 */
import {
  chmodSync,
  closeSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { errnoText, RunError, UsageError } from './errors.js'

const open = new Set<AtomicFile>()
const counter = { n: 0 }

/** Names of what this process has open already, such as /dev/stdout: it is written where it stands. */
const INHERITED = /^\/(?:dev|proc\/self)\/(?:fd\/(\d+)|stdout|stderr)$/
const MAX_LINKS = 40
/** Of a temporary name so much comes from the target: the whole must not be too long for the file system. */
const TMP_CHARS = 40

/** A disk that gives out is not the fault of the command line. */
function isExhausted(error: unknown): boolean {
  return error instanceof Error && 'code' in error && ['ENOSPC', 'EDQUOT', 'EIO'].includes(String(error.code))
}

/** Where a symbolic link leads, also when nothing is there yet: the link stays, its target is replaced. */
function target(path: string): string {
  for (let k = 0; k < MAX_LINKS; k++) {
    if (INHERITED.test(path) || lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return path
    path = resolve(dirname(path), readlinkSync(path))
  }
  return path
}

function inheritedFd(path: string): number | null {
  const match = INHERITED.exec(path)
  if (match === null) return null
  return match[1] === undefined ? (path.endsWith('stdout') ? 1 : 2) : Number(match[1])
}

/** AtomicFile - one output file in the making. Throws LabErrors that name the target. */
export class AtomicFile {
  /** The temporary file, and what it becomes; null for what is written where it stands, such as a device or a pipe. */
  #tmp: { name: string; becomes: string } | null = null
  #fd = -1
  #owned = true

  /** Opens the temporary file; a target that cannot be written fails here, before the work is done. */
  constructor(readonly path: string) {
    try {
      this.#open(target(path))
    } catch (error) {
      if (error instanceof UsageError) throw error
      const Failure = isExhausted(error) ? RunError : UsageError
      throw new Failure(`cannot write ${path}: ${errnoText(error)}`, { cause: error })
    }
    if (open.size === 0) process.on('exit', discardAll)
    open.add(this)
  }

  #open(path: string): void {
    const fd = inheritedFd(path)
    if (fd !== null) {
      fstatSync(fd)
      this.#fd = fd
      this.#owned = false
      return
    }
    const s: Stats | undefined = statSync(path, { throwIfNoEntry: false })
    if (s?.isDirectory()) throw new UsageError(`cannot write ${this.path}: is a folder`)
    if (s !== undefined && !s.isFile()) {
      this.#fd = openSync(path, 'w') // a rename would replace the device by a plain file
      return
    }
    counter.n++
    const name = join(dirname(path), `.${basename(path).slice(0, TMP_CHARS)}.${process.pid}-${counter.n}.tmp`)
    if (s !== undefined)
      closeSync(openSync(path, 'r+')) // a file that may not be written is not replaced either
    else if (Buffer.byteLength(basename(path)) > 255) throw Object.assign(new Error(), { code: 'ENAMETOOLONG' })
    this.#fd = openSync(name, 'wx', 0o666)
    this.#tmp = { name, becomes: path }
    if (s !== undefined) chmodSync(name, s.mode & 0o7777)
  }

  /** Appends; on failure the temporary file is taken away. */
  write(data: string | Uint8Array): void {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    this.#try(() => {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at)
    })
  }

  /** All of it is on the disk: after that little can go wrong any more. */
  flush(): void {
    this.#try(() => {
      if (this.#tmp !== null) fsyncSync(this.#fd)
    })
  }

  /** Puts the file under its name. */
  commit(): void {
    this.flush()
    this.#try(() => {
      this.#close()
      if (this.#tmp !== null) renameSync(this.#tmp.name, this.#tmp.becomes)
    })
    forget(this)
  }

  /** Takes the temporary file away; the target stays as it was. May be called at any time, also after a commit. */
  discard(): void {
    if (!open.has(this)) return
    forget(this)
    this.#close()
    if (this.#tmp !== null) rmSync(this.#tmp.name, { force: true })
  }

  #close(): void {
    if (this.#fd >= 0 && this.#owned) closeSync(this.#fd)
    this.#fd = -1
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
