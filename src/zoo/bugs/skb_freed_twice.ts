/** #47: a packet is put on a queue, and freed by who put it there. */
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { skb_dequeue, skb_queue_head_init, skb_queue_tail } from '../../net/core/skb_queue.js'
import { alloc_skb, consume_skb } from '../../net/core/skbuff.js'
import { SKB_HEAD } from '../../net/core/types.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

const queue = DEFINE_STATIC('pktoptions', SKB_HEAD)

export function setup(twin: Twin) {
  machine_init(2)
  skb_queue_head_init(queue)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

export const actors = {
  /** dccp_rcv_state_process, and `goto discard`. */
  'CPU 0'({ fixed }: Shared) {
    const skb = alloc_skb(64)!
    skb_queue_tail(queue, skb)
    if (!fixed) consume_skb(skb)
  },
  'CPU 1'() {
    const skb = skb_dequeue(queue)
    if (skb !== null) consume_skb(skb)
  },
}
