/**
 * ip_ra.ts - IP_ROUTER_ALERT: raw sockets that get the packets a router would forward although they ask routers to look at them
 * (ip_ra_chain of net/ipv4/ip_sockglue.c of 2.6.11; RFC 2113).
 *
 * Lock charter
 *   ip_ra.lock guards the chain, which owns a reference of each socket. Under it: the receive queue's lock.
 */
import { by, embed, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { EADDRINUSE, EINVAL, ENOBUFS, ENOENT } from '../../lib/errno.js'
import { MAX_SOCKS } from '../../lib/limits.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import {
  RWLOCK,
  read_lock,
  read_unlock,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { skb_clone } from '../core/skbuff.js'
import { sock_hold, sock_put } from '../core/sock.js'
import { SOCK, SOCK_RAW, type sock } from '../core/sock_types.js'
import type { sk_buff } from '../core/types.js'
import { IP_MF, IP_OFFSET, ip_frag_off, ip_protocol } from '../wire/ipv4.js'
import { inet_sk } from './inet_sock.js'
import { ip_defrag } from './ip_defrag.js'
import { IP_DEFRAG_CALL_RA_CHAIN } from './ipq.js'
import { raw_rcv } from './raw_hash.js'

const IPPROTO_RAW = 255

class ip_ra_chain extends Struct {
  declare next: ip_ra_chain | null
  declare sk: sock | null
}
const RA: Layout<ip_ra_chain> = layout('ip_ra_chain', ip_ra_chain, {
  next: by(
    'ip_ra.lock',
    ptr(() => RA),
  ),
  sk: by(
    'ip_ra.lock',
    ptr(() => SOCK),
  ),
})
const ra_cache = kmem_cache_create('ip_ra_chain', RA, () => MAX_SOCKS >> 2)

class ip_ra_state extends Struct {
  declare lock: rwlock_t
  declare first: number
}
const STATE: Layout<ip_ra_state> = layout('ip_ra', ip_ra_state, { lock: embed(RWLOCK), first: word })
const chain = DEFINE_STATIC('ip_ra', STATE)

/** ip_ra_control - this socket wants such packets, or no longer. @context process @returns 0, -EINVAL, -EADDRINUSE, -ENOENT, -ENOBUFS */
export function ip_ra_control(sk: sock, on: boolean): number {
  if (sk.sk_type !== SOCK_RAW || inet_sk(sk).num === IPPROTO_RAW) return -EINVAL
  const fresh = on ? kmem_cache_alloc(ra_cache) : null
  write_lock_bh(chain.lock)
  let before: ip_ra_chain | null = null
  let ra = RA.at(chain.first)
  for (; ra !== null && ra.sk !== sk; ra = ra.next) before = ra
  let err = 0
  if (on && ra !== null) err = -EADDRINUSE
  else if (on && fresh === null) err = -ENOBUFS
  else if (!on && ra === null) err = -ENOENT
  else if (fresh !== null) {
    fresh.sk = sk
    sock_hold(sk)
    fresh.next = RA.at(chain.first)
    chain.first = fresh.addr
  } else if (before !== null) before.next = ra!.next
  else chain.first = ra!.next === null ? 0 : ra!.next.addr
  write_unlock_bh(chain.lock)
  if (err !== 0 && fresh !== null) kmem_cache_free(ra_cache, fresh)
  if (err === 0 && !on) {
    kmem_cache_free(ra_cache, ra!)
    sock_put(sk)
  }
  return err
}

/** Does this socket want the packet? */
function wants(sk: sock, skb: sk_buff): boolean {
  const dev = sk.sk_bound_dev_if
  return inet_sk(sk).num === ip_protocol(skb.nh) && (dev === 0 || dev === skb.dev!.ifindex)
}

/** ip_call_ra_chain - a packet that is not for us, with the option. @context softirq @consumes skb if it returns true */
export function ip_call_ra_chain(given: sk_buff): boolean {
  let skb = given
  let last: sock | null = null
  read_lock(chain.lock)
  for (let ra = RA.at(chain.first); ra !== null; ra = ra.next) {
    const sk = SOCK.ref(ra.sk!.addr)
    if (!wants(sk, skb)) continue
    if (last === null && (ip_frag_off(skb.nh) & (IP_MF | IP_OFFSET)) !== 0) {
      const whole = ip_defrag(skb, IP_DEFRAG_CALL_RA_CHAIN)
      if (whole === null) {
        read_unlock(chain.lock)
        return true
      }
      skb = whole
    }
    const copy = last === null ? null : skb_clone(skb)
    if (copy !== null) raw_rcv(last!, copy)
    last = sk
  }
  if (last !== null) raw_rcv(last, skb)
  read_unlock(chain.lock)
  return last !== null
}

/** ip_ra_init - @context boot, CPU 0 */
export function ip_ra_init(): void {
  rwlock_init(chain.lock)
}
