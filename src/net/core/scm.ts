/** scm.ts - control messages: what else recvmsg tells of a packet; and what it takes to pass files in them. */
import { RAM } from '../../arch/ram.js'
import { EFAULT } from '../../lib/errno.js'
import { copy_to_user, put_user } from '../../sched/mm.js'
import { SOL_SOCKET } from './sock_opt.js'
import { MSG_CTRUNC, type msghdr, type sock } from './sock_types.js'
import { stamp_now } from './stamp.js'
import type { sk_buff } from './types.js'

const i32 = RAM.i32

/** sizeof(struct cmsghdr): length, level, type. */
const CMSG_HDR = 12
const SCM_TIMESTAMP = 29

function cmsg_align(n: number): number {
  return (n + 3) & ~3
}

/** put_cmsg - one control message of `len` bytes at `data`, as far as there is room for it. @context process @returns 0, -EFAULT */
export function put_cmsg(msg: msghdr, level: number, type: number, len: number, data: number): number {
  const cm = msg.msg_control
  let cmlen = CMSG_HDR + len
  if (cm === 0 || msg.msg_controllen < CMSG_HDR) {
    msg.msg_flags |= MSG_CTRUNC
    return 0
  }
  if (msg.msg_controllen < cmlen) {
    msg.msg_flags |= MSG_CTRUNC
    cmlen = msg.msg_controllen
  }
  if (put_user(cmlen, cm) !== 0 || put_user(level, cm + 4) !== 0 || put_user(type, cm + 8) !== 0) return -EFAULT
  if (copy_to_user(cm + CMSG_HDR, data, cmlen - CMSG_HDR) !== 0) return -EFAULT
  const space = Math.min(cmsg_align(CMSG_HDR + len), msg.msg_controllen)
  msg.msg_control += space
  msg.msg_controllen -= space
  return 0
}

/** sock_recv_timestamp - when the packet came in, if the program wants to be told. */
export function sock_recv_timestamp(msg: msghdr, sk: sock, skb: sk_buff): void {
  const tv = skb.stamp
  if (sk.sk_rcvtstamp !== 0) {
    stamp_now(tv) // it may have come before anybody asked for the time
    put_cmsg(msg, SOL_SOCKET, SCM_TIMESTAMP, 8, tv)
  }
  i32[sk.sk_stamp >> 2] = i32[tv >> 2]
  i32[(sk.sk_stamp >> 2) + 1] = i32[(tv >> 2) + 1]
}

/** What socket families may do with files, whose floor is above theirs: filled when that one is loaded. Files are addresses. */
export const scm_files = {
  /** The file of a descriptor, with one more reference; 0: it is not open. */
  fget: (_fd: number): number => 0,
  get: (_file: number): void => {},
  /** @consumes a reference */
  *put(_file: number): Generator<void, void, void> {},
  /** References of a file. */
  count: (_file: number): number => 0,
  /** The sock of a file that is a socket; 0: it is none. */
  sk_of: (_file: number): number => 0,
  /** A descriptor that is reserved, or -EMFILE. */
  get_unused_fd: (): number => 0,
  put_unused_fd: (_fd: number): void => {},
  /** @consumes a reference of the file */
  install: (_fd: number, _file: number): void => {},
}
