/** unlink.ts - the system call that takes a path away: of a Unix socket or a FIFO, since there is no file system. */
import { PIPE, pipe_put } from '../fs/pipe.js'
import { unix_unlink } from '../net/unix/unix_table.js'
import { getname } from './open.js'

/** sys_unlink - who has it open goes on. @returns 0, -ENOENT, -ENAMETOOLONG, -EFAULT, -EACCES */
export function sys_unlink(path: number): number {
  const name = getname(path)
  if (typeof name === 'number') return name
  const ret = unix_unlink(name.at, name.len)
  if (ret <= 0) return ret
  pipe_put(PIPE.ref(ret))
  return 0
}
