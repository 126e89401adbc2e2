/** softnet_data.ts - what each CPU has of its own in the softnet core; dev.ts says who may touch it and when. */
import { embed, type Layout, layout, own, ptr, Struct, word } from '../../abi/layout.js'
import { LIST, type list_head } from '../../abi/list.js'
import { DEFINE_PER_CPU } from '../../abi/section.js'
import { INT, type int_ref, NETDEV, type net_device, SKB, SKB_HEAD, type sk_buff, type sk_buff_head } from './types.js'

export class softnet_data extends Struct {
  declare throttle: number
  declare cng_level: number
  declare avg_blog: number
  declare input_pkt_queue: sk_buff_head
  declare ipintrq: sk_buff_head
  declare poll_list: list_head
  declare output_queue: net_device | null
  declare completion_queue: sk_buff | null
  declare budget: int_ref
  declare backlog_dev: net_device
}
const SOFTNET: Layout<softnet_data> = layout('softnet_data', softnet_data, {
  throttle: own(word),
  cng_level: own(word),
  avg_blog: own(word),
  input_pkt_queue: own(embed(SKB_HEAD)),
  ipintrq: own(embed(SKB_HEAD)), // the IP input queue of the interrupt architecture
  poll_list: own(embed(LIST)),
  output_queue: own(ptr(() => NETDEV)),
  completion_queue: own(ptr(() => SKB)),
  budget: own(embed(INT)),
  backlog_dev: embed(NETDEV), // the backlog as a device that can be polled
})
export const softnet_datas = DEFINE_PER_CPU('softnet_data', SOFTNET)
