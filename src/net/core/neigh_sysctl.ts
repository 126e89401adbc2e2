/**
 * neigh_sysctl.ts - net.PROTOCOL.neigh.default.* and .DEVICE.*: how neighbours are asked for and kept. What is said of `default`
 * holds for devices that come later. No lock of its own: neighbour.ts has the words.
 */
import { EINVAL } from '../../lib/errno.js'
import { arp_tbl, type neigh_parms, neigh_parms_find } from './neighbour.js'
import { dev_name, first_netdev } from './netdevice.js'
import { register_sysctl_dir } from './sysctl.js'

const HOUR = 3_600_000
/** Of each device: the field, what one of its unit is in ms (1 for numbers), and the largest value that makes sense. */
const PARMS: Record<string, [field: keyof neigh_parms & string, unit: number, max: number]> = {
  mcast_solicit: ['mcast_probes', 1, 100],
  ucast_solicit: ['ucast_probes', 1, 100],
  app_solicit: ['app_probes', 1, 100],
  unres_qlen: ['queue_len', 1, 1000],
  proxy_qlen: ['proxy_qlen', 1, 1000],
  // seconds
  base_reachable_time: ['base_reachable_time', 1000, 86_400],
  delay_first_probe_time: ['delay_probe_time', 1000, 3600],
  gc_stale_time: ['gc_staletime', 1000, 86_400],
  // 1/100 s, as USER_HZ has it
  retrans_time: ['retrans_time', 10, HOUR / 10],
  anycast_delay: ['anycast_delay', 10, HOUR / 10],
  proxy_delay: ['proxy_delay', 10, HOUR / 10],
  locktime: ['locktime', 10, HOUR / 10],
  // the same as what they are kept as; 2.6.11 has the first two
  retrans_time_ms: ['retrans_time', 1, HOUR],
  base_reachable_time_ms: ['base_reachable_time', 1, 24 * HOUR],
  delay_first_probe_time_ms: ['delay_probe_time', 1, HOUR],
  gc_stale_time_ms: ['gc_staletime', 1, 24 * HOUR],
  proxy_delay_ms: ['proxy_delay', 1, HOUR],
  locktime_ms: ['locktime', 1, HOUR],
}
/** Of the table: under `default` alone. */
const TABLE: Record<string, ['gc_thresh1' | 'gc_thresh2' | 'gc_thresh3' | 'gc_interval', number, number]> = {
  gc_thresh1: ['gc_thresh1', 1, 0x7fffffff],
  gc_thresh2: ['gc_thresh2', 1, 0x7fffffff],
  gc_thresh3: ['gc_thresh3', 1, 0x7fffffff],
  gc_interval: ['gc_interval', 1000, 86_400],
}

/** @locks rtnl is held */
function parms_of(which: string): neigh_parms | null {
  if (which === 'default') return arp_tbl.parms
  for (let dev = first_netdev(); dev !== null; dev = dev.next) if (dev_name(dev) === which) return neigh_parms_find(dev)
  return null
}

/** neigh_sysctl_register - at module load. */
export function neigh_sysctl_register(protocol: string): void {
  register_sysctl_dir(`net.${protocol}.neigh.`, path => {
    const dot = path.lastIndexOf('.')
    const [which, name] = [path.slice(0, dot), path.slice(dot + 1)]
    const of = which === 'default' ? (PARMS[name] ?? TABLE[name]) : PARMS[name]
    const home = TABLE[name] === undefined ? parms_of(which) : arp_tbl
    if (of === undefined || home === null) return null
    const [field, unit, max] = of
    const words = home as unknown as Record<string, number>
    return {
      get: () => Math.floor(words[field]! / unit),
      set(value) {
        if (value < 0 || value > max) return -EINVAL
        words[field] = value * unit
        return 0
      },
    }
  })
}
