/** creat.ts - the system call that makes a file: there is no disk, the host of the machine keeps what is written to it. */
import { RAM } from '../arch/ram.js'
import { host_create } from '../drivers/char/console.js'
import { FILE, fd_install, get_unused_fd, put_unused_fd } from '../fs/file.js'
import { EFAULT, ENAMETOOLONG, ENFILE, ENOENT } from '../lib/errno.js'
import type { Call } from '../net/core/socket.js'
import { copy_from_user, task_kstack } from '../sched/mm.js'
import { current } from '../sched/sched.js'

const u8 = RAM.u8
/** Bytes of the longest path, its last 0 included. */
const PATH_MAX = 256

/** sys_creat - open for writing, empty. @returns descriptor, -ENOENT, -ENAMETOOLONG, -EFAULT, -EMFILE, -ENFILE */
export function* sys_creat(path: number): Call {
  const at = task_kstack(current()).words
  const missing = copy_from_user(at, path, PATH_MAX)
  const len = u8.subarray(at, at + PATH_MAX - missing).indexOf(0)
  if (len < 0) return missing > 0 ? -EFAULT : -ENAMETOOLONG
  if (len === 0) return -ENOENT
  const fd = get_unused_fd()
  if (fd < 0) return fd
  const made = yield* host_create(path, len)
  if (made > 0) fd_install(fd, FILE.ref(made))
  else put_unused_fd(fd)
  return made > 0 ? fd : made === 0 ? -ENFILE : made
}
