/** softnet_dead.ts - what a CPU had in hand when it stands still: another one goes on with it, or the audit gives it back. */
import { list_del_init, list_empty, list_move_tail } from '../../abi/list.js'
import { fetch_and } from '../../arch/atomic.js'
import { local_irq_restore, local_irq_save } from '../../arch/cpu.js'
import { dead_hooks } from '../../irq/hotplug.js'
import { NET_RX_SOFTIRQ, NET_TX_SOFTIRQ, raise_softirq_irqoff } from '../../irq/softirq.js'
import { netif_rx } from './dev.js'
import { dev_put, netif_poll_enable } from './netdevice.js'
import { __skb_dequeue, __skb_queue_tail, skb_dequeue } from './skb_queue.js'
import { __skb_sent } from './skbuff.js'
import { softnet_datas } from './softnet_data.js'
import { LINK_STATE_SCHED, NETDEV, type net_device, type sk_buff } from './types.js'

const queue = softnet_datas.mine
const STATE = NETDEV.offset('state')

/** dev_cpu_dead - packets and devices that a CPU that stands still had in hand go on here. @context process */
function dev_cpu_dead(cpu: number): void {
  const old = softnet_datas.cpu(cpu)
  const flags = local_irq_save()
  for (let skb = old.completion_queue; skb !== null; ) {
    const next: sk_buff | null = skb.next
    skb.next = queue.completion_queue
    queue.completion_queue = skb
    skb = next
  }
  old.completion_queue = null
  for (let dev = old.output_queue; dev !== null; ) {
    const next: net_device | null = dev.next_sched
    dev.next_sched = queue.output_queue
    queue.output_queue = dev
    dev = next
  }
  old.output_queue = null
  for (let at = old.poll_list.next; at !== old.poll_list.addr; ) {
    const dev = NETDEV.container_of('poll_list', at)
    at = dev.poll_list.next
    if (dev.addr !== old.backlog_dev.addr) list_move_tail(dev.poll_list, queue.poll_list)
  }
  for (let skb = __skb_dequeue(old.ipintrq); skb !== null; skb = __skb_dequeue(old.ipintrq))
    __skb_queue_tail(queue.ipintrq, skb)
  raise_softirq_irqoff(NET_TX_SOFTIRQ)
  raise_softirq_irqoff(NET_RX_SOFTIRQ)
  local_irq_restore(flags)
  for (let skb = skb_dequeue(old.input_pkt_queue); skb !== null; skb = skb_dequeue(old.input_pkt_queue)) {
    const { dev } = skb
    netif_rx(skb)
    dev_put(dev!)
  }
}
dead_hooks.push(dev_cpu_dead)

/** softnet_drain_halted - what a CPU of a halted machine still had to complete, send or poll. @context audit */
export function softnet_drain_halted(cpu: number): void {
  const sd = softnet_datas.cpu(cpu)
  for (let skb = sd.completion_queue; skb !== null; ) {
    const next: sk_buff | null = skb.next
    skb.next = null
    __skb_sent(skb)
    skb = next
  }
  sd.completion_queue = null
  for (let dev = sd.output_queue; dev !== null; dev = dev.next_sched) fetch_and(dev.addr + STATE, ~LINK_STATE_SCHED)
  sd.output_queue = null
  while (!list_empty(sd.poll_list)) {
    const dev = NETDEV.container_of('poll_list', sd.poll_list.next)
    list_del_init(dev.poll_list)
    netif_poll_enable(dev)
    dev_put(dev)
  }
}
