/**
 * ipt_conntrack.ts - all that the tracker knows of a packet's connection (ipt_conntrack.c). A module.
 *
 * Locks: ip_conntrack_lock for reading, below a table's lock, while the time that a connection has left is looked at; 2.6.11
 * reads it without. The tuples of a packet's connection do not change under it: see the charter of ip_conntrack.ts.
 *
 * Data: what is asked | what of it is inverted << 8, states, status bits, protocol; addresses: source and destination of the
 * first packet, of the answer, then their masks; least and most seconds.
 */

import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { jiffies } from '../../../irq/timer.js'
import { read_lock_bh, read_unlock_bh } from '../../../sync/rwlock.js'
import type { sk_buff } from '../../core/types.js'
import {
  CONNTRACK,
  ct,
  IP_CT_IS_REPLY,
  IPS_CONFIRMED,
  IPS_DST_NAT,
  IPS_SRC_NAT,
  type ip_conntrack,
} from './ip_conntrack.js'
import { T_DST, T_PROTO, T_SRC } from './ip_conntrack_tuple.js'
import { define_match, NO, YES } from './ip_tables.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32

const STATE = 1 << 0
const PROTO = 1 << 1
/** Four bits: source and destination of the first packet, of the answer. */
const ADDRESS = 1 << 2
const STATUS = 1 << 6
const EXPIRES = 1 << 7
const W_STATES = 1
const W_STATUS = 2
const W_PROTO = 3
const W_ADDRS = 4
const W_MASKS = 8
const W_LEAST = 12
const W_MOST = 13
const WORDS = 14

const STATE_INVALID = 1
const STATE_SNAT = 1 << 6
const STATE_DNAT = 1 << 7

function states(skb: sk_buff, c: ip_conntrack | null): number {
  if (c === null) return STATE_INVALID
  const { status } = c
  const nat = ((status & IPS_SRC_NAT) !== 0 ? STATE_SNAT : 0) | ((status & IPS_DST_NAT) !== 0 ? STATE_DNAT : 0)
  return (2 << (skb.nfctinfo % IP_CT_IS_REPLY)) | nat
}

/** Seconds that it has left; 0 while it is not confirmed, or over. */
function seconds_left(c: ip_conntrack): number {
  read_lock_bh(ct.lock)
  const left = (c.status & IPS_CONFIRMED) === 0 ? 0 : (c.timeout.expires - jiffies()) | 0
  read_unlock_bh(ct.lock)
  return Math.floor(Math.max(0, left) / hz())
}

/** Is the word of a tuple, at `which` of the four addresses, the wanted one? */
function address_is(c: ip_conntrack, w: number, which: number): boolean {
  const tuple = (which < 2 ? c.orig : c.reply) >> 2
  const addr = i32[tuple + ((which & 1) === 0 ? T_SRC : T_DST)]
  return (addr & i32[w + W_MASKS + which]) === i32[w + W_ADDRS + which]
}

function conntrack_match(skb: sk_buff, _in: unknown, _out: unknown, info: number): number {
  const w = info >> 2
  const asked = i32[w] & 255
  const inv = i32[w] >> 8
  const differs = (bit: number, is: boolean): boolean => is === ((inv & bit) !== 0)
  const c = skb.nfct === 0 ? null : CONNTRACK.ref(skb.nfct)
  if ((asked & STATE) !== 0 && differs(STATE, (states(skb, c) & i32[w + W_STATES]) !== 0)) return NO
  if ((asked & ~STATE) === 0) return YES
  if (c === null) return NO // of what has no connection nothing else is true, inverted or not
  if ((asked & PROTO) !== 0 && differs(PROTO, i32[(c.orig >> 2) + T_PROTO] === i32[w + W_PROTO])) return NO
  for (let k = 0; k < 4; k++) {
    const bit = ADDRESS << k
    if ((asked & bit) !== 0 && differs(bit, address_is(c, w, k))) return NO
  }
  if ((asked & STATUS) !== 0 && differs(STATUS, (c.status & i32[w + W_STATUS]) !== 0)) return NO
  if ((asked & EXPIRES) === 0) return YES
  const left = seconds_left(c)
  return differs(EXPIRES, left >= i32[w + W_LEAST] >>> 0 && left <= i32[w + W_MOST] >>> 0) ? NO : YES
}
define_match('conntrack', WORDS, conntrack_match, (_t, _e, info) => i32[info >> 2] >>> 16 === 0)
extension_module('conntrack', ['match'], ['ip_conntrack'])
