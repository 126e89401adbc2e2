/** errors.ts - failures that end a run with one clear line, and the exit code that belongs to them. */

export const EXIT_CLEAN = 0
/** A bug found, a bar missed, or a run that could not be finished. */
export const EXIT_FINDING = 1
/** Wrong flags or unusable input. */
export const EXIT_USAGE = 2
/** 128 + SIGINT, as a shell has it. */
export const EXIT_INTERRUPTED = 130

/** LabError - a failure that its message explains in one line. */
export class LabError extends Error {
  override name = 'LabError'
  constructor(
    message: string,
    readonly exitCode: number,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** UsageError - a flag is wrong, or a file given as input is missing, truncated or of another kind. */
export class UsageError extends LabError {
  override name = 'UsageError'
  constructor(message: string, options?: ErrorOptions) {
    super(message, EXIT_USAGE, options)
  }
}

/** RunError - the run could not be carried through, such as for a full disk. */
export class RunError extends LabError {
  override name = 'RunError'
  constructor(message: string, options?: ErrorOptions) {
    super(message, EXIT_FINDING, options)
  }
}

/** SetupError - the machine cannot be what its configuration says. */
export class SetupError extends RunError {
  override name = 'SetupError'
  constructor(
    readonly what: string,
    /** Which part of the setup is to blame: its field, then a key or an index. */
    readonly part: readonly [field: string, key: string | number] | null,
  ) {
    super(`the machine cannot be set up: ${what}`)
  }
}

/** setupError - what init says that could not set up the machine: a line, and another one with the part. null: `text` is a dump */
export function setupError(text: string): SetupError | null {
  const match = /^init: (.*?)(?:\n(\w+) (\S+))?$/s.exec(text)
  if (match === null) return null
  const [, what = '', field, key = ''] = match
  return new SetupError(what, field === undefined ? null : [field, /^\d+$/.test(key) ? Number(key) : key])
}

/** MachinePanic - the machine died: of a broken invariant, an exception, or with a thread. The message is its dump. */
export class MachinePanic extends RunError {
  override name = 'MachinePanic'
}

/** errnoText - the words for a host error code, and the code of one that has none here. */
export function errnoText(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return WORDS[code] ?? (code !== '' ? code : error instanceof Error ? error.message : String(error))
}

const WORDS: Record<string, string | undefined> = {
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'disk quota exceeded',
  EFBIG: 'file too large',
  EIO: 'input or output error',
  ENOENT: 'no such file or folder',
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'read-only file system',
  EISDIR: 'is a folder',
  ENOTDIR: 'a part of the path is not a folder',
  EMFILE: 'too many open files',
  ENAMETOOLONG: 'the name is too long',
  ELOOP: 'too many symbolic links',
  ENXIO: 'no such device or address',
  EPIPE: 'the reader has gone',
  EBADF: 'is not open',
  ETXTBSY: 'is a program that runs',
}
