/**
 * libnetlink.ts - talking to the kernel's network configuration by rtnetlink, for programs (what libnetlink is to iproute2):
 * messages and attributes as bytes, requests with their answers, dumps, and listening to what changes.
 */
import { bind, close, type Libc, malloc, mem, recvfrom, sendto, socket, store32, variable } from './libc.js'

const AF_NETLINK = 16
const SOCK_RAW = 3
const NETLINK_ROUTE = 0
const RECEIVE = 8192

export const AF_INET = 2
export const NLM_F_REQUEST = 1
export const NLM_F_ACK = 4
export const NLM_F_DUMP = 0x300
export const NLM_F_REPLACE = 0x100
export const NLM_F_EXCL = 0x200
export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800
const NLMSG_ERROR = 2
const NLMSG_DONE = 3

export const RTM = {
  ...{ NEWLINK: 16, DELLINK: 17, GETLINK: 18, SETLINK: 19, NEWADDR: 20, DELADDR: 21, GETADDR: 22, NEWROUTE: 24 },
  ...{ DELROUTE: 25, GETROUTE: 26, NEWNEIGH: 28, DELNEIGH: 29, GETNEIGH: 30, NEWRULE: 32, DELRULE: 33, GETRULE: 34 },
} as const
export const RTMGRP = { LINK: 1, NEIGH: 4, IPV4_IFADDR: 0x10, IPV4_ROUTE: 0x40, IPV4_RULE: 0x80 } as const

/** A netlink socket, and memory for what comes. */
export interface Netlink {
  fd: number
  buf: number
  len: number
  addr: number
  seq: number
}

export interface Message {
  type: number
  flags: number
  seq: number
  pid: number
  /** Behind the header of 16 bytes. */
  body: Uint8Array
}

// ---- bytes ----------------------------------------------------------------------------------------------------------

export function u16(n: number): number[] {
  return [n & 255, (n >> 8) & 255]
}
export function u32(n: number): number[] {
  return [n & 255, (n >> 8) & 255, (n >> 16) & 255, n >>> 24]
}
/** An IPv4 address, in network order. */
export function addr(n: number): number[] {
  return [n >>> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]
}
export function text(s: string): number[] {
  return [...Array.from(s, c => c.charCodeAt(0)), 0]
}
function padded(bytes: number[]): number[] {
  return [...bytes, ...new Array<number>(-bytes.length & 3).fill(0)]
}
/** attr - an attribute with these bytes. */
export function attr(type: number, data: number[]): number[] {
  return padded([...u16(4 + data.length), ...u16(type), ...data])
}

export function get16(b: Uint8Array, at: number): number {
  return b[at]! | (b[at + 1]! << 8)
}
export function get32(b: Uint8Array, at = 0): number {
  return b[at]! | (b[at + 1]! << 8) | (b[at + 2]! << 16) | (b[at + 3]! << 24)
}
export function getAddr(b: Uint8Array, at = 0): number {
  return (b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!
}
export function getText(b: Uint8Array): string {
  const end = b.indexOf(0)
  return String.fromCharCode(...b.subarray(0, end < 0 ? b.length : end))
}

/** attrs - what lies behind the fixed part of a message, by type; the last of each counts. */
export function attrs(body: Uint8Array, from: number): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>()
  for (let at = from; at + 4 <= body.length; ) {
    const len = get16(body, at)
    if (len < 4 || at + len > body.length) break
    found.set(get16(body, at + 2), body.subarray(at + 4, at + len))
    at += (len + 3) & ~3
  }
  return found
}

// ---- the socket -----------------------------------------------------------------------------------------------------

/** rtnl_open - listening to these groups, of NETLINK_ROUTE if nothing else is said. @returns the socket, or a negative errno */
export function* rtnl_open(groups = 0, protocol = NETLINK_ROUTE): Generator<void, Netlink | number, void> {
  const fd = yield* socket(AF_NETLINK, SOCK_RAW, protocol)
  if (fd < 0) return fd
  const nl: Netlink = { fd, buf: malloc(RECEIVE), len: variable(), addr: malloc(16), seq: 0 }
  const err = yield* bind(fd, sockaddr_nl(nl.addr, 0, groups), 12)
  if (err === 0) return nl
  yield* close(fd)
  return err
}
export function rtnl_close(nl: Netlink): Libc {
  return close(nl.fd)
}

/** sockaddr_nl - writes one at `at`. @returns at */
export function sockaddr_nl(at: number, pid: number, groups: number, family = AF_NETLINK): number {
  mem(at, 12).set([...u16(family), 0, 0, ...u32(pid), ...u32(groups)])
  return at
}

/** request - a message with its header; `body`: the fixed part and the attributes. */
export function request(nl: Netlink, type: number, flags: number, body: number[]): Uint8Array {
  nl.seq++
  return Uint8Array.from([
    ...u32(16 + body.length),
    ...u16(type),
    ...u16(flags | NLM_F_REQUEST),
    ...u32(nl.seq),
    0,
    0,
    0,
    0,
    ...body,
  ])
}

/** send_bytes - to the kernel. @returns bytes, or a negative errno */
export function* send_bytes(nl: Netlink, bytes: Uint8Array): Libc {
  mem(nl.buf, bytes.length).set(bytes)
  return yield* sendto(nl.fd, nl.buf, bytes.length, 0, sockaddr_nl(nl.addr, 0, 0), 12)
}

/** receive - the messages of one packet, waiting for it unless the flags say no. @returns them, or a negative errno */
export function* receive(nl: Netlink, flags = 0): Generator<void, Message[] | number, void> {
  store32(nl.len, 12)
  const n = yield* recvfrom(nl.fd, nl.buf, RECEIVE, flags, nl.addr, nl.len)
  if (n < 0) return n
  const bytes = mem(nl.buf, n).slice()
  const messages: Message[] = []
  for (let at = 0; at + 16 <= n; ) {
    const len = get32(bytes, at)
    if (len < 16 || at + len > n) break
    messages.push({
      ...{
        type: get16(bytes, at + 4),
        flags: get16(bytes, at + 6),
        seq: get32(bytes, at + 8),
        pid: get32(bytes, at + 12),
      },
      body: bytes.slice(at + 16, at + len),
    })
    at += (len + 3) & ~3
  }
  return messages
}

/** rtnl_talk - a request with its answer: 0, a negative errno, or the message that was asked for. */
export function* rtnl_talk(
  nl: Netlink,
  type: number,
  flags: number,
  body: number[],
): Generator<void, Message | number, void> {
  const sent = yield* send_bytes(nl, request(nl, type, flags, body))
  if (sent < 0) return sent
  for (;;) {
    const messages = yield* receive(nl)
    if (typeof messages === 'number') return messages
    for (const m of messages) {
      if (m.seq !== nl.seq) continue
      return m.type === NLMSG_ERROR ? get32(m.body) : m
    }
  }
}

/** rtnl_change - a request that is acknowledged. @returns 0, or a negative errno */
export function* rtnl_change(nl: Netlink, type: number, flags: number, body: number[]): Libc {
  const answer = yield* rtnl_talk(nl, type, flags | NLM_F_ACK, body)
  return typeof answer === 'number' ? answer : 0
}

/** rtnl_dump - all there is of a kind. @returns the messages, or a negative errno */
export function* rtnl_dump(nl: Netlink, type: number, body: number[]): Generator<void, Message[] | number, void> {
  const sent = yield* send_bytes(nl, request(nl, type, NLM_F_DUMP, body))
  if (sent < 0) return sent
  const all: Message[] = []
  for (;;) {
    const messages = yield* receive(nl)
    if (typeof messages === 'number') return messages
    for (const m of messages) {
      if (m.seq !== nl.seq) continue
      if (m.type === NLMSG_DONE) return all
      if (m.type === NLMSG_ERROR) return get32(m.body)
      all.push(m)
    }
  }
}
