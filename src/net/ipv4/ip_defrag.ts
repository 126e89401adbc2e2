/** ip_defrag.ts - datagrams in pieces are put together (the second half of net/ipv4/ip_fragment.c of 2.6.11). Locks: see ipq.ts. */
import { fetch_add, load } from '../../arch/atomic.js'
import { cost } from '../../arch/cost.js'
import { tick } from '../../arch/cpu.js'
import { spin_lock, spin_unlock } from '../../sync/spinlock.js'
import { fate_delivered, fate_sent } from '../core/fate.js'
import {
  __skb_pull,
  kfree_skb,
  pskb_expand_head,
  pskb_trim,
  skb_cloned,
  skb_linearize,
  skb_push,
  skb_shinfo,
} from '../core/skbuff.js'
import { ACCT_NONE, CHECKSUM_NONE, CHECKSUM_UNNECESSARY, type net_device, type sk_buff } from '../core/types.js'
import { IP_MF, IP_OFFSET, ip_frag_off, ip_hdrlen, set_ip_frag_off, set_ip_tot_len } from '../wire/ipv4.js'
import { ip_send_check } from './ip_output.js'
import { ip_ctl } from './ip_sysctl.js'
import {
  COMPLETE,
  FIRST_IN,
  frag_kfree_skb,
  IP_DEFRAG_CONNTRACK_OUT,
  ip_evictor,
  ip_find,
  type ipq,
  ipq_kill,
  ipq_put,
  ipq_touch,
  LAST_IN,
  MEM,
  NOT_REASSEMBLED,
} from './ipq.js'
import { ip_stats } from './mib.js'

const COST_DEFRAG = cost('ip_defrag')

/** A piece that came in ends here, in the books. One on its way out keeps its account: the whole carries that on. */
function account(fp: sk_buff, user: number): void {
  if (user >= IP_DEFRAG_CONNTRACK_OUT) return
  fate_delivered(fp.acct)
  fp.acct = ACCT_NONE
}

/** Where a piece lies in its datagram. It has no transport header of its own, so `h` is free for that until it is whole. */
function offset_of(fp: sk_buff): number {
  return fp.h
}
function set_offset(fp: sk_buff, offset: number): void {
  fp.h = offset
}
function not_summed(fp: sk_buff): void {
  if (fp.ip_summed !== CHECKSUM_UNNECESSARY) fp.ip_summed = CHECKSUM_NONE
}
function link_after(qp: ipq, prev: sk_buff | null, fp: sk_buff | null): void {
  if (prev === null) qp.fragments = fp
  else prev.next = fp
}

/** Does a piece that ends there fit what is known of the datagram's length? @returns its end, or -1 */
function check_end(qp: ipq, skb: sk_buff, end: number, more: boolean): number {
  const known = (qp.last_in & LAST_IN) !== 0
  if (!more) {
    if (end < qp.len || (known && end !== qp.len)) return -1
    qp.last_in |= LAST_IN
    qp.len = end
    return end
  }
  if ((end & 7) !== 0) {
    end &= ~7
    not_summed(skb)
  }
  if (end > qp.len) {
    if (known) return -1
    qp.len = end
  }
  return end
}

/** What of the pieces behind a new one it covers, goes. @returns the piece that follows it then */
function cover(qp: ipq, prev: sk_buff | null, first: sk_buff | null, end: number): sk_buff | null {
  let next = first
  while (next !== null && offset_of(next) < end) {
    const i = end - offset_of(next)
    if (i < next.len) {
      __skb_pull(next, i)
      set_offset(next, offset_of(next) + i)
      qp.meat -= i
      not_summed(next)
      break
    }
    const gone = next
    next = next.next
    link_after(qp, prev, next)
    qp.meat -= gone.len
    frag_kfree_skb(gone)
  }
  return next
}

/** ip_frag_queue - one more piece. @locks qp.lock is held @returns false: it is of no use, and still the caller's */
function ip_frag_queue(qp: ipq, skb: sk_buff): boolean {
  if ((qp.last_in & COMPLETE) !== 0 || skb_linearize(skb) !== 0) return false
  const field = ip_frag_off(skb.nh)
  const ihl = ip_hdrlen(skb.nh)
  let offset = (field & IP_OFFSET) << 3
  const end = check_end(qp, skb, offset + skb.len - ihl, (field & IP_MF) !== 0)
  if (end < 0 || end === offset) return false
  __skb_pull(skb, ihl)
  if (pskb_trim(skb, end - offset) !== 0) return false
  let prev: sk_buff | null = null
  let next = qp.fragments
  while (next !== null && offset_of(next) < offset) {
    prev = next
    next = next.next
  }
  if (prev !== null) {
    const i = offset_of(prev) + prev.len - offset // what the piece before has already
    if (i > 0) {
      offset += i
      if (end <= offset) return false
      __skb_pull(skb, i)
      not_summed(skb)
    }
  }
  next = cover(qp, prev, next, end)
  set_offset(skb, offset)
  skb.next = next
  link_after(qp, prev, skb)
  qp.iif = skb.dev === null ? 0 : skb.dev.ifindex
  skb.dev = null
  qp.meat += skb.len
  account(skb, qp.user)
  fetch_add(MEM, skb.truesize)
  if (offset === 0) qp.last_in |= FIRST_IN
  ipq_touch(qp)
  return true
}

/** ip_frag_reasm - all pieces are there: one packet. @locks qp.lock is held @returns it, or null */
function ip_frag_reasm(qp: ipq, dev: net_device | null): sk_buff | null {
  ipq_kill(qp)
  const head = qp.fragments!
  const len = ip_hdrlen(head.nh) + qp.len
  if (len > 65535 || (skb_cloned(head) && pskb_expand_head(head, 0, 0) !== 0)) {
    ip_stats.ReasmFails++
    return null
  }
  skb_push(head, head.data - head.nh)
  head.h = head.nh + ip_hdrlen(head.nh)
  skb_shinfo(head).frag_list = head.next
  fetch_add(MEM, -head.truesize)
  for (let fp = head.next; fp !== null; fp = fp.next) {
    head.data_len += fp.len
    head.len += fp.len
    if (head.ip_summed !== fp.ip_summed) head.ip_summed = CHECKSUM_NONE
    fetch_add(MEM, -fp.truesize)
    head.truesize += fp.truesize
    if (head.acct === ACCT_NONE) head.acct = fp.acct
    else fate_sent(fp.acct) // of a packet of its own: it goes on as part of this one
    fp.acct = ACCT_NONE
  }
  head.next = null
  head.dev = dev
  qp.fragments = null
  set_ip_frag_off(head.nh, 0)
  set_ip_tot_len(head.nh, len)
  ip_send_check(head.nh) // 2.6.11 leaves it wrong, and quotes it so in errors
  ip_stats.ReasmOKs++
  return head
}

/** ip_defrag - a piece for one of those who collect them. @context softirq @consumes skb @returns the whole datagram, or null: not yet */
export function ip_defrag(skb: sk_buff, user: number): sk_buff | null {
  tick(COST_DEFRAG)
  ip_stats.ReasmReqds++
  if (load(MEM) > ip_ctl.frag_high_thresh) ip_evictor()
  const { dev } = skb
  const qp = ip_find(skb.nh, user)
  if (qp === null) {
    ip_stats.ReasmFails++
    kfree_skb(skb, NOT_REASSEMBLED)
    return null
  }
  let whole: sk_buff | null = null
  spin_lock(qp.lock)
  const queued = ip_frag_queue(qp, skb)
  if (queued && qp.last_in === (FIRST_IN | LAST_IN) && qp.meat === qp.len) whole = ip_frag_reasm(qp, dev)
  spin_unlock(qp.lock)
  ipq_put(qp)
  if (!queued) kfree_skb(skb, NOT_REASSEMBLED)
  return whole
}
