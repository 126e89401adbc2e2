/** creat.ts - the system call that makes a file, as open for writing has it. */
import { O_CREAT, O_TRUNC, O_WRONLY } from '../lib/fcntl.js'
import type { Call } from '../net/core/socket.js'
import { sys_open } from './open.js'

/** sys_creat - open for writing, empty. @returns as sys_open */
export function sys_creat(path: number, mode: number): Call {
  return sys_open(path, O_CREAT | O_WRONLY | O_TRUNC, mode)
}
