/** unlink.ts - the system call that takes a path away: of a Unix socket, since there is no file system. */
import { RAM } from '../arch/ram.js'
import { EFAULT, ENOENT } from '../lib/errno.js'
import { unix_unlink } from '../net/unix/unix_table.js'
import { copy_from_user, task_kstack } from '../sched/mm.js'
import { current } from '../sched/sched.js'

const u8 = RAM.u8
/** Bytes of the longest path of a socket, its last 0 included. */
const MAX_PATH = 108

/** sys_unlink - @returns 0, -ENOENT, -EFAULT, -EACCES */
export function sys_unlink(path: number): number {
  const at = task_kstack(current()).words
  const missing = copy_from_user(at, path, MAX_PATH)
  const end = u8.subarray(at, at + MAX_PATH - missing).indexOf(0)
  if (end < 0) return missing > 0 ? -EFAULT : -ENOENT
  return end === 0 ? -ENOENT : unix_unlink(at, end + 1)
}
