/** stats.ts - the counters of the softnet core, per CPU, under the names of /proc/net/softnet_stat. */
import { type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU } from '../../abi/section.js'

/** The columns of /proc/net/softnet_stat. */
export class netif_rx_stats extends Struct {
  declare total: number
  declare dropped: number
  declare time_squeeze: number
  declare throttled: number
  declare fastroute_hit: number
  declare fastroute_success: number
  declare fastroute_defer: number
  declare fastroute_deferred_out: number
  declare cpu_collision: number
  declare polls: number
  declare tx_timeouts: number
}
const STATS: Layout<netif_rx_stats> = layout('netif_rx_stats', netif_rx_stats, {
  total: own(word),
  dropped: own(word),
  time_squeeze: own(word),
  throttled: own(word),
  fastroute_hit: own(word),
  fastroute_success: own(word),
  fastroute_defer: own(word),
  fastroute_deferred_out: own(word),
  cpu_collision: own(word),
  polls: own(word), // calls of a device's poll; not a column of softnet_stat
  tx_timeouts: own(word), // devices that the watchdog found hanging; not a column either
})
export const netdev_rx_stat = DEFINE_PER_CPU('netdev_rx_stat', STATS)
