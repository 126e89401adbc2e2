/** unix_scm.ts - what Unix messages carry beside their bytes (net/core/scm.c of 2.6.11): who sent them, and files. */
import { RAM } from '../../arch/ram.js'
import { EBADF, EFAULT, EINVAL, ENOMEM, EPERM } from '../../lib/errno.js'
import { kmalloc } from '../../mm/kmalloc.js'
import { copy_from_user, get_user, KSTACK_WORDS, put_user, task_kstack } from '../../sched/mm.js'
import { current } from '../../sched/sched.js'
import { put_cmsg, scm_files } from '../core/scm.js'
import { OPT_SCRATCH, SOL_SOCKET } from '../core/sock_opt.js'
import { MSG_CTRUNC, type msghdr } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import type { sk_buff } from '../core/types.js'
import { files_of, scm_destroy } from './garbage.js'
import { UCRED } from './types.js'

const i32 = RAM.i32
const SCM_RIGHTS = 1
const SCM_CREDENTIALS = 2
const CMSG_HDR = 12
/** Files in one message. */
const SCM_MAX_FD = 255

/** scratch - a place on the kernel stack. */
export function scratch(): number {
  return task_kstack(current()).words + KSTACK_WORDS - OPT_SCRATCH
}

export interface scm_cookie {
  pid: number
  uid: number
  gid: number
  /** Files, with a reference of each. */
  files: number[]
}

/** scm_fp_copy - the files of these descriptors. @returns 0, -EINVAL, -EBADF */
function scm_fp_copy(scm: scm_cookie, at: number, num: number): number {
  if (num <= 0) return 0
  if (num > SCM_MAX_FD || scm.files.length + num > SCM_MAX_FD) return -EINVAL
  for (let k = 0; k < num; k++) {
    const fd = get_user(at + 4 * k)
    const file = fd === null || fd < 0 ? 0 : scm_files.fget(fd)
    if (file === 0) return -EBADF
    scm.files.push(file)
  }
  return 0
}

/** One control message. @returns 0, -errno */
function scm_take(scm: scm_cookie, type: number, cm: number, len: number): number {
  if (type === SCM_RIGHTS) return scm_fp_copy(scm, cm + CMSG_HDR, (len - CMSG_HDR) >> 2)
  if (type !== SCM_CREDENTIALS || len !== CMSG_HDR + 12) return -EINVAL
  const at = scratch()
  if (copy_from_user(at, cm + CMSG_HDR, 12) !== 0) return -EFAULT
  const said = { pid: i32[at >> 2]!, uid: i32[(at >> 2) + 1]!, gid: i32[(at >> 2) + 2]! }
  // Only root may say what is not so.
  if (current().uid !== 0 && (said.pid !== scm.pid || said.uid !== scm.uid || said.gid !== scm.gid)) return -EPERM
  Object.assign(scm, said)
  return 0
}

function scm_parse(msg: msghdr, scm: scm_cookie): number {
  const at = scratch()
  const end = msg.msg_control + msg.msg_controllen
  for (let cm = msg.msg_control; cm !== 0 && cm + CMSG_HDR <= end; ) {
    if (copy_from_user(at, cm, CMSG_HDR) !== 0) return -EFAULT
    const [len, level, type] = [i32[at >> 2]!, i32[(at >> 2) + 1]!, i32[(at >> 2) + 2]!]
    if (len < CMSG_HDR || cm + len > end) return -EINVAL
    const err = level === SOL_SOCKET ? scm_take(scm, type, cm, len) : 0
    if (err < 0) return err
    cm += (len + 3) & ~3
  }
  return 0
}

/** scm_send - what the program says goes with its message; nothing is held after an error. @returns 0, -EFAULT, -EINVAL, -EPERM, -EBADF */
export function* scm_send(msg: msghdr, scm: scm_cookie): Call {
  const err = scm_parse(msg, scm)
  if (err < 0) yield* scm_release(scm)
  return err
}
/** scm_release - files that were not sent after all. */
export function* scm_release(scm: scm_cookie): Generator<void, void, void> {
  for (const file of scm.files.splice(0)) yield* scm_files.put(file)
}

function make_list(files: readonly number[]): number {
  const fp = files.length === 0 ? 0 : kmalloc(4 + 4 * files.length)
  if (fp === 0) return 0
  i32[fp >> 2] = files.length
  files.forEach((file, k) => {
    i32[(fp >> 2) + 1 + k] = file
  })
  return fp
}

/** scm_attach - sender and files into a message. @consumes the files of scm @returns 0, -ENOMEM: they are still the caller's */
export function scm_attach(skb: sk_buff, scm: scm_cookie): number {
  const cb = UCRED.ref(skb.cb)
  cb.pid = scm.pid
  cb.uid = scm.uid
  cb.gid = scm.gid
  cb.fp = make_list(scm.files)
  if (scm.files.length > 0 && cb.fp === 0) return -ENOMEM
  scm.files.splice(0)
  return 0
}

/** scm_fp_dup - the files of a message that stays where it is (MSG_PEEK). @returns owned list, 0: none, or no memory */
export function scm_fp_dup(skb: sk_buff): number {
  const files = files_of(UCRED.ref(skb.cb).fp)
  const fp = make_list(files)
  if (fp !== 0) for (const file of files) scm_files.get(file)
  return fp
}

/** scm_detach_fds - descriptors for the files, as far as there is room. @consumes fp */
function* scm_detach_fds(msg: msghdr, fp: number): Generator<void, void, void> {
  const files = files_of(fp)
  const room = msg.msg_controllen > CMSG_HDR ? (msg.msg_controllen - CMSG_HDR) >> 2 : 0
  const cm = msg.msg_control
  let n = 0
  for (; n < Math.min(files.length, room); n++) {
    const fd = scm_files.get_unused_fd()
    if (fd < 0) break
    if (put_user(fd, cm + CMSG_HDR + 4 * n) !== 0) {
      scm_files.put_unused_fd(fd)
      break
    }
    scm_files.get(files[n]!)
    scm_files.install(fd, files[n]!)
  }
  if (n > 0) {
    const len = CMSG_HDR + 4 * n
    if ((put_user(len, cm) || put_user(SOL_SOCKET, cm + 4) || put_user(SCM_RIGHTS, cm + 8)) === 0) {
      msg.msg_control += len
      msg.msg_controllen -= len
    }
  }
  if (n < files.length) msg.msg_flags |= MSG_CTRUNC
  yield* scm_destroy(fp)
}

/** scm_recv - what a message carried, for its receiver: `cb` has the sender. @consumes fp @context process */
export function* scm_recv(msg: msghdr, passcred: boolean, cb: number, fp: number): Generator<void, void, void> {
  if (msg.msg_control === 0) {
    if (passcred || fp !== 0) msg.msg_flags |= MSG_CTRUNC
    yield* scm_destroy(fp)
    return
  }
  if (passcred) put_cmsg(msg, SOL_SOCKET, SCM_CREDENTIALS, 12, cb)
  if (fp !== 0) yield* scm_detach_fds(msg, fp)
}
