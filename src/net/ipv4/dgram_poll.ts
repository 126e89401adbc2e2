/** dgram_poll.ts - what waits in a datagram or raw socket, for poll and for SIOCINQ and SIOCOUTQ. No locks of its own. */
import { POLLIN, POLLRDNORM, type poll_table } from '../../sched/poll.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../sync/spinlock.js'
import { datagram_ioctl, datagram_poll } from '../core/datagram.js'
import { drop_reason } from '../core/fate.js'
import { __skb_unlink, skb_peek } from '../core/skb_queue.js'
import { kfree_skb } from '../core/skbuff.js'
import { RCV_SHUTDOWN, type sock, type socket } from '../core/sock_types.js'
import { CHECKSUM_UNNECESSARY, type sk_buff } from '../core/types.js'
import { UDP_HLEN } from '../wire/udp.js'
import { udp_stats } from './udp_hash.js'
import { udp_checksum_complete } from './udp_input.js'

const CHECKSUM = drop_reason('udp_checksum')

/** The first datagram if its sum is wrong, off the queue; null: it is right, or there is none. `empty` tells. */
function take_bad(sk: sock): { bad: sk_buff | null; empty: boolean } {
  const queue = sk.sk_receive_queue
  const irq = spin_lock_irqsave(queue.lock)
  const skb = skb_peek(queue)
  const bad = skb !== null && udp_checksum_complete(skb)
  if (bad) __skb_unlink(skb, queue)
  else if (skb !== null) skb.ip_summed = CHECKSUM_UNNECESSARY
  spin_unlock_irqrestore(queue.lock, irq)
  return { bad: bad ? skb : null, empty: skb === null }
}

/**
 * udp_poll - a datagram whose sum is wrong must not make a program read that would then wait for the next one. Who does not
 * wait is told by EAGAIN. @context process
 */
export function udp_poll(sock: socket, pt: poll_table | null, nonblock: boolean): number {
  const mask = datagram_poll(sock, pt)
  const sk = sock.sk!
  if ((mask & POLLRDNORM) === 0 || nonblock || (sk.sk_shutdown & RCV_SHUTDOWN) !== 0) return mask
  for (;;) {
    const { bad, empty } = take_bad(sk)
    if (bad === null) return empty ? mask & ~(POLLIN | POLLRDNORM) : mask
    udp_stats.InErrors++
    kfree_skb(bad, CHECKSUM)
  }
}

/** udp_ioctl - @returns 0, -EFAULT, null: it does not know the command */
export function udp_ioctl(sk: sock, cmd: number, arg: number): number | null {
  return datagram_ioctl(sk, cmd, arg, UDP_HLEN)
}
export function raw_ioctl(sk: sock, cmd: number, arg: number): number | null {
  return datagram_ioctl(sk, cmd, arg, 0)
}
