/** stamp.ts - when a packet came in: skb.stamp is a timeval of the machine's clock, taken only while somebody asks for it. */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { fetch_add } from '../../arch/atomic.js'
import { now_ns } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import type { sk_buff } from './types.js'

const i32 = RAM.i32

class netstamp_box extends Struct {
  declare needed: number
}
const BOX: Layout<netstamp_box> = layout('netstamp', netstamp_box, { needed: atomic(word) })
const netstamp = DEFINE_STATIC('netstamp', BOX)

/** netstamp_needed - word index of the count of those who ask; the receive paths look at it for each packet. */
export const netstamp_needed = netstamp.$w

/** net_enable_timestamp - packets that come in are stamped until net_disable_timestamp is called as often. @context any */
export function net_enable_timestamp(): void {
  fetch_add(netstamp.addr, 1)
}
export function net_disable_timestamp(): void {
  fetch_add(netstamp.addr, -1)
}

/** net_timestamp - stamp a packet, unless the path that it came by has done so already. */
export function net_timestamp(skb: sk_buff): void {
  stamp_now(skb.stamp)
}

/** stamp_now - a timeval that was not taken yet: it is now. */
export function stamp_now(at: number): void {
  const tv = at >> 2
  if (i32[tv] !== 0 || i32[tv + 1] !== 0) return // the machine's time begins at 0
  const us = Math.floor(now_ns() / 1000)
  i32[tv] = Math.floor(us / 1e6)
  i32[tv + 1] = us % 1e6
}
