/** taps.ts - taps see what goes out as well (dev_queue_xmit_nit of net/core/dev.c). No locks: the list is RCU (packet_type.ts). */
import { call } from '../../abi/symbol.js'
import { READ_ONCE } from '../../arch/atomic.js'
import { RAM } from '../../arch/ram.js'
import { rcu_dereference, rcu_read_lock, rcu_read_unlock } from '../../rcu/rcupdate.js'
import { PACKET_TYPE, ptypes } from './packet_type.js'
import { skb_clone } from './skbuff.js'
import { net_timestamp, netstamp_needed } from './stamp.js'
import { type net_device, PACKET_OUTGOING, type sk_buff } from './types.js'

const i32 = RAM.i32
const ALL = ptypes.addr

/** netdev_nit - is there a tap? One load for each packet that is sent. */
export function netdev_nit(): boolean {
  return READ_ONCE(ALL) !== 0
}

/**
 * dev_queue_xmit_nit - a clone for every tap but the one whose own packet it is, just before the driver gets it. One that the
 * driver does not take is seen again when it does, as in 2.6.11. @context softirq, or bottom halves off
 */
export function dev_queue_xmit_nit(skb: sk_buff, dev: net_device): void {
  if (i32[netstamp_needed] !== 0) net_timestamp(skb)
  rcu_read_lock()
  for (let pt = PACKET_TYPE.at(rcu_dereference(ALL)); pt !== null; pt = pt.next) {
    if (pt.dev !== null && pt.dev !== dev) continue
    if (pt.af_packet_priv !== 0 && pt.af_packet_priv === skb.sk) continue
    const copy = skb_clone(skb)
    if (copy === null) break
    copy.mac = copy.data
    if (copy.nh < copy.data || copy.nh > copy.tail) copy.nh = copy.data // who sent it did not say
    copy.h = copy.nh
    copy.pkt_type = PACKET_OUTGOING
    call(pt.func)(copy, dev, pt)
  }
  rcu_read_unlock()
}
