/** msg.ts - messages with ancillary data: struct msghdr, its control messages, and what the error queue of a socket tells. */
import { load32, malloc, mem, recvmsg, sin_addr, sin_port, store32 } from './libc.js'

export const MSG_PEEK = 2
export const MSG_TRUNC = 0x20
export const MSG_DONTWAIT = 0x40
export const MSG_ERRQUEUE = 0x2000

/** A msghdr with a name, one piece of memory and room for control messages; `reset` before each call. */
export interface Message {
  at: number
  name: number
  buf: number
  control: number
  reset(len: number): number
  /** Control messages that came: level, type, address and length of the data. */
  cmsgs(): { level: number; type: number; data: number; len: number }[]
  flags(): number
}

const CONTROL = 256

/** message - over memory of the program's, with room for a name of so many bytes. */
export function message(buf: number, namelen = 16): Message {
  const at = malloc(28)
  const name = malloc(namelen)
  const iov = malloc(8)
  const control = malloc(CONTROL)
  return {
    ...{ at, name, buf, control },
    reset(len) {
      store32(iov, buf)
      store32(iov + 4, len)
      ;[name, namelen, iov, 1, control, CONTROL, 0].forEach((word, k) => {
        store32(at + 4 * k, word)
      })
      return at
    },
    cmsgs() {
      const out: { level: number; type: number; data: number; len: number }[] = []
      const end = control + load32(at + 20)
      for (let cm = control; cm + 12 <= end; ) {
        const len = load32(cm)
        if (len < 12) break
        out.push({ level: load32(cm + 4), type: load32(cm + 8), data: cm + 12, len: len - 12 })
        cm += (len + 3) & ~3
      }
      return out
    },
    flags: () => load32(at + 24),
  }
}

export const SO_EE_ORIGIN_LOCAL = 1
export const SO_EE_ORIGIN_ICMP = 2

/** One entry of an error queue. */
export interface QueuedError {
  errno: number
  origin: number
  type: number
  code: number
  info: number
  /** Who complains. */
  offender: number
  /** Whom the datagram was for. */
  addr: number
  port: number
  /** Bytes of the datagram that came back, at the message's buffer. */
  len: number
}

/** recv_error - the next error of the queue, into the message. @returns null: there is none */
export function* recv_error(fd: number, m: Message, room: number): Generator<void, QueuedError | null, void> {
  const len = yield* recvmsg(fd, m.reset(room), MSG_ERRQUEUE | MSG_DONTWAIT)
  if (len < 0) return null
  const found = m.cmsgs().find(c => c.level === 0 && c.type === 11)
  if (found === undefined) return null
  const ee = mem(found.data, 16)
  const info = load32(found.data + 8)
  return {
    ...{ errno: load32(found.data), origin: ee[4]!, type: ee[5]!, code: ee[6]!, info, len },
    offender: sin_addr(found.data + 16),
    addr: sin_addr(m.name),
    port: sin_port(m.name),
  }
}

/** in_cksum - the Internet checksum over the program's memory. */
export function in_cksum(addr: number, len: number): number {
  const b = mem(addr, len)
  let sum = 0
  for (let k = 0; k + 1 < len; k += 2) sum += (b[k]! << 8) | b[k + 1]!
  if ((len & 1) !== 0) sum += b[len - 1]! << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
