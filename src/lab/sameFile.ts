/** sameFile.ts - do two paths name one file? A link of either kind, or another spelling, must not cost the user a capture. */
import { realpathSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'

/** fileIdentity - equal for two paths to one file; null for a device or pipe, which may be read and written at once. */
export function fileIdentity(path: string): string | null {
  try {
    const s = statSync(path, { bigint: true })
    return s.isFile() || s.isDirectory() ? `${s.dev}:${s.ino}` : null
  } catch {
    // It is not there yet: then its folder says where it will be.
  }
  try {
    return join(realpathSync(dirname(path)), basename(path))
  } catch {
    return resolve(path)
  }
}
