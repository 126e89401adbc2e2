/**
 * filter.ts - socket filters: a small program of the user's (BPF) that says of each packet how much of it the socket wants.
 *
 * Lock charter
 *   sk_filter is changed and followed under slock with bottom halves off; whether there is one is looked at without it. A
 *   filter is freed by who takes it off its socket: nobody runs it outside slock.
 */
import { bytes, konst, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU } from '../../abi/section.js'
import { fetch_add, load, store } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { EFAULT, EINVAL, ENOMEM, ENONET, EPERM } from '../../lib/errno.js'
import { MAX_FILTERS, OPTMEM_MAX } from '../../lib/limits.js'
import { for_programs, kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { copy_from_user } from '../../sched/mm.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { spin_lock, spin_unlock } from '../../sync/spinlock.js'
import { pskb_trim, skb_copy_bits, skb_headlen } from './skbuff.js'
import { SOCK, type sock } from './sock_types.js'
import { core_ctl } from './sysctl_net_core.js'
import type { sk_buff } from './types.js'

const i32 = RAM.i32
const dv = RAM.dv
const FILTER_OF = SOCK.offset('sk_filter')
const OMEM = SOCK.offset('sk_omem_alloc')

export const BPF_MAXINSNS = 4096
const BPF_MEMWORDS = 16
/** struct sock_filter: code (2), jt, jf, k (4). */
const INSN = 8

class sk_filter_t extends Struct {
  declare len: number
  declare size: number
  declare insns: number
}
const SK_FILTER: Layout<sk_filter_t> = layout('sk_filter', sk_filter_t, {
  len: konst(word), // instructions
  size: konst(word), // bytes that the socket is charged for
  insns: konst(bytes(INSN)), // the first of them
})
const HEADER = 8
const filter_cache = kmem_cache_create('sk_filter', SK_FILTER, () => for_programs(MAX_FILTERS), OPTMEM_MAX)

/** What a running filter has besides A and X. */
class bpf_scratch extends Struct {
  declare mem: number
  declare bits: number
}
const SCRATCH: Layout<bpf_scratch> = layout('bpf_scratch', bpf_scratch, {
  mem: own(bytes(4 * BPF_MEMWORDS)),
  bits: own(word), // bytes that did not lie in one piece
})
/** Filters run with bottom halves off, so one at a time on each CPU. */
const scratch = DEFINE_PER_CPU('bpf_scratch', SCRATCH).mine

// classes of instructions, and what else is in a code
const BPF_LD = 0x00
const BPF_LDX = 0x01
const BPF_ST = 0x02
const BPF_STX = 0x03
const BPF_JMP = 0x05
const BPF_RET = 0x06
const BPF_MEM = 0x60
const BPF_CLASS = 0x07
const BPF_OP = 0xf0
/** Offsets that are not of the packet's bytes. */
const SKF_AD_OFF = -0x1000
const SKF_AD_PROTOCOL = 0
const SKF_AD_PKTTYPE = 4
const SKF_AD_IFINDEX = 8
const SKF_NET_OFF = -0x100000
const SKF_LL_OFF = -0x200000

// ---- running --------------------------------------------------------------------------------------------------------

/** load_pointer - address of `size` bytes at offset `k`, or 0: the packet has none. Below 0: from one of the headers on. */
function load_pointer(skb: sk_buff, k: number, size: number): number {
  if (k < 0) {
    const at = k >= SKF_NET_OFF ? skb.nh + k - SKF_NET_OFF : k >= SKF_LL_OFF ? skb.mac + k - SKF_LL_OFF : 0
    return at >= skb.head && at + size <= skb.tail ? at : 0
  }
  if (k + size <= skb_headlen(skb)) return skb.data + k
  if (k + size > skb.len) return 0
  const at = scratch.addr + SCRATCH.offset('bits')
  skb_copy_bits(skb, k, at, size)
  return at
}
/** What cannot be read off a packet. @returns null: there is no such thing */
function ancillary(skb: sk_buff, k: number): number | null {
  switch (k - SKF_AD_OFF) {
    case SKF_AD_PROTOCOL:
      return skb.protocol
    case SKF_AD_PKTTYPE:
      return skb.pkt_type
    case SKF_AD_IFINDEX:
      return skb.dev === null ? null : skb.dev.ifindex
    default:
      return null
  }
}
/** A load of 4, 2 or 1 bytes. @returns the unsigned value, or -1: the packet is too short */
function load_size(skb: sk_buff, k: number, code: number): number {
  const size = (code & 0x18) === 0 ? 4 : (code & 0x18) === 8 ? 2 : 1
  if (k < 0 && k >= SKF_AD_OFF) return ancillary(skb, k) ?? -1
  const at = load_pointer(skb, k, size)
  if (at === 0) return -1
  return size === 4 ? dv.getUint32(at) : size === 2 ? dv.getUint16(at) : dv.getUint8(at)
}

/** Both of them and the result are unsigned. @returns -1: a division by 0 */
function alu(code: number, a: number, b: number): number {
  switch (code & BPF_OP) {
    case 0x00:
      return (a + b) >>> 0
    case 0x10:
      return (a - b) >>> 0
    case 0x20:
      return Math.imul(a, b) >>> 0
    case 0x30:
      return b === 0 ? -1 : Math.floor(a / b)
    case 0x40:
      return (a | b) >>> 0
    case 0x50:
      return (a & b) >>> 0
    case 0x60:
      return (a << b) >>> 0
    case 0x70:
      return a >>> b
    case 0x80:
      return -a >>> 0
    default:
      return -1
  }
}
function jumps(code: number, a: number, b: number): boolean {
  switch (code & BPF_OP) {
    case 0x10:
      return a === b
    case 0x20:
      return a > b
    case 0x30:
      return a >= b
    default:
      return (a & b) !== 0
  }
}

/**
 * sk_run_filter - how many bytes of the packet are wanted; 0: none of it. What it reads beyond the packet, a division by 0 and a
 * code that there is not end it with 0. @param insns address of `flen` checked instructions @context bottom halves off
 */
export function sk_run_filter(skb: sk_buff, insns: number, flen: number): number {
  const mem = (scratch.addr + SCRATCH.offset('mem')) >> 2
  let A = 0
  let X = 0
  i32.fill(0, mem, mem + BPF_MEMWORDS)
  for (let pc = 0; pc < flen; pc++) {
    const at = (insns + pc * INSN) >> 2
    const head = i32[at]!
    const k = i32[at + 1]! >>> 0
    const code = head & 0xffff
    let taken = false
    switch (code & BPF_CLASS) {
      case BPF_LD:
        switch (code & 0xe0) {
          case 0x00:
            A = k
            break
          case 0x20:
            A = load_size(skb, k | 0, code)
            break
          case 0x40:
            A = load_size(skb, (X + k) | 0, code)
            break
          case BPF_MEM:
            A = i32[mem + k]! >>> 0
            break
          case 0x80:
            A = skb.len
            break
          default:
            return 0
        }
        if (A < 0) return 0
        break
      case BPF_LDX:
        switch (code & 0xe0) {
          case 0x00:
            X = k
            break
          case BPF_MEM:
            X = i32[mem + k]! >>> 0
            break
          case 0x80:
            X = skb.len
            break
          case 0xa0: // four times the low half of a byte: a header's length
            X = load_size(skb, k | 0, 0x10)
            if (X < 0) return 0
            X = (X & 15) << 2
            break
          default:
            return 0
        }
        break
      case BPF_ST:
        i32[mem + k] = A
        break
      case BPF_STX:
        i32[mem + k] = X
        break
      case BPF_JMP:
        if ((code & BPF_OP) === 0) {
          pc += k
          break
        }
        taken = jumps(code, A, (code & 8) !== 0 ? X : k)
        pc += taken ? (head >>> 16) & 255 : head >>> 24
        break
      case BPF_RET:
        return (code & 0x18) === 0x10 ? A : k
      case 0x07:
        if ((code & 0xf8) === 0) X = A
        else A = X
        break
      default:
        A = alu(code, A, (code & 8) !== 0 ? X : k)
        if (A < 0) return 0
    }
  }
  return 0
}

/** sk_chk_filter - jumps go forward and stay inside, memory is there, and the end is a return. @returns 0, -EINVAL */
export function sk_chk_filter(insns: number, flen: number): number {
  if (flen === 0 || flen > BPF_MAXINSNS) return -EINVAL
  let code = 0
  for (let pc = 0; pc < flen; pc++) {
    const at = (insns + pc * INSN) >> 2
    const head = i32[at]!
    const k = i32[at + 1]! >>> 0
    code = head & 0xffff
    if ((code & BPF_CLASS) === BPF_JMP) {
      if ((code & BPF_OP) === 0) {
        if (k >= flen - pc - 1) return -EINVAL
      } else if (pc + ((head >>> 16) & 255) + 1 >= flen || pc + (head >>> 24) + 1 >= flen) return -EINVAL
    }
    const memory = code === BPF_ST || code === BPF_STX || code === (BPF_LD | BPF_MEM) || code === (BPF_LDX | BPF_MEM)
    if (memory && k >= BPF_MEMWORDS) return -EINVAL
  }
  return (code & BPF_CLASS) === BPF_RET ? 0 : -EINVAL
}

// ---- sockets --------------------------------------------------------------------------------------------------------

/** sk_has_filter - looked at without the lock: one that comes or goes meanwhile may be missed. */
export function sk_has_filter(sk: sock): boolean {
  return load(sk.addr + FILTER_OF) !== 0
}
/** run_filter - how much of the packet the socket wants. @context bottom halves off @returns `all`: it has no filter */
export function run_filter(sk: sock, skb: sk_buff, all: number): number {
  spin_lock(sk.sk_lock.slock)
  const fp = SK_FILTER.at(sk.sk_filter)
  const wanted = fp === null ? all : sk_run_filter(skb, fp.addr + HEADER, fp.len)
  spin_unlock(sk.sk_lock.slock)
  return wanted
}
/**
 * sk_filter - cuts the packet to what the socket wants, but not below its header.
 * @context softirq @returns 0, -EPERM: nothing of it, -ENOMEM
 */
export function sk_filter(sk: sock, skb: sk_buff, header: number): number {
  if (!sk_has_filter(sk)) return 0
  const wanted = run_filter(sk, skb, skb.len)
  return wanted === 0 ? -EPERM : pskb_trim(skb, Math.max(wanted, header))
}

/** sk_filter_release - @consumes the filter, which no socket has any more */
function sk_filter_release(sk: sock, addr: number): void {
  const fp = SK_FILTER.at(addr)
  if (fp === null) return
  fetch_add(sk.addr + OMEM, -fp.size)
  kmem_cache_free(filter_cache, fp)
}
function exchange(sk: sock, addr: number): number {
  spin_lock_bh(sk.sk_lock.slock)
  const old = sk.sk_filter
  store(sk.addr + FILTER_OF, addr)
  spin_unlock_bh(sk.sk_lock.slock)
  return old
}

/**
 * sk_attach_filter - in place of the one that the socket had. @param filter address of `len` instructions of the user's
 * @context process @returns 0, -EINVAL, -ENOMEM, -EFAULT
 */
export function sk_attach_filter(sk: sock, filter: number, len: number): number {
  if (filter === 0 || len > BPF_MAXINSNS) return -EINVAL
  const size = len * INSN + HEADER
  if (load(sk.addr + OMEM) + size >= core_ctl.optmem_max || size > OPTMEM_MAX) return -ENOMEM
  const fp = kmem_cache_alloc(filter_cache)
  if (fp === null) return -ENOMEM
  const at = fp.addr + HEADER
  const err = copy_from_user(at, filter, len * INSN) !== 0 ? -EFAULT : sk_chk_filter(at, len)
  if (err !== 0) {
    kmem_cache_free(filter_cache, fp)
    return err
  }
  fp.len = len
  fp.size = size
  fetch_add(sk.addr + OMEM, size)
  sk_filter_release(sk, exchange(sk, fp.addr))
  return 0
}
/** sk_detach_filter - @context process @returns 0, -ENONET: it has none */
export function sk_detach_filter(sk: sock): number {
  const old = exchange(sk, 0)
  sk_filter_release(sk, old)
  return old === 0 ? -ENONET : 0
}
/** sk_filter_free - of a sock that goes. */
export function sk_filter_free(sk: sock): void {
  const old = sk.sk_filter
  if (old === 0) return
  sk.sk_filter = 0
  sk_filter_release(sk, old)
}
