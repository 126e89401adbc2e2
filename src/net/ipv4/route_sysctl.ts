/** route_sysctl.ts - net.ipv4.route.* and net.ipv4.inet_peer_*. No lock: each is one word, read whenever it is needed. */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { hz } from '../../arch/machine.js'
import { EINVAL } from '../../lib/errno.js'
import { INET_PEER_THRESHOLD, MAX_INET_PEERS, RT_CACHE_ENTRIES, RT_HASH_BUCKETS } from '../../lib/limits.js'
import { register_sysctl, sysctl_word } from '../core/sysctl.js'

export class rt_sysctl extends Struct {
  declare gc_thresh: number
  declare max_size: number
  declare gc_elasticity: number
  declare gc_min_interval: number
  declare gc_timeout: number
  declare gc_interval: number
  declare redirect_load: number
  declare redirect_number: number
  declare redirect_silence: number
  declare error_cost: number
  declare error_burst: number
  declare mtu_expires: number
  declare min_pmtu: number
  declare min_adv_mss: number
  declare secret_interval: number
  declare peer_threshold: number
  declare peer_minttl: number
  declare peer_maxttl: number
  declare peer_gc_mintime: number
  declare peer_gc_maxtime: number
}
const SYSCTL: Layout<rt_sysctl> = layout('rt_sysctl', rt_sysctl, {
  gc_thresh: atomic(word), // entries from which on each new one asks the collector
  max_size: atomic(word), // entries
  gc_elasticity: atomic(word), // length of a chain from which on a new entry pushes one out
  // jiffies
  gc_min_interval: atomic(word),
  gc_timeout: atomic(word),
  gc_interval: atomic(word),
  redirect_load: atomic(word),
  redirect_number: atomic(word), // redirects to one who does not listen
  redirect_silence: atomic(word),
  error_cost: atomic(word),
  error_burst: atomic(word),
  mtu_expires: atomic(word),
  min_pmtu: atomic(word), // bytes
  min_adv_mss: atomic(word), // bytes
  secret_interval: atomic(word),
  peer_threshold: atomic(word), // hosts from which on those that nobody refers to go sooner
  // jiffies: how long an unused one is kept when there are many and when there are few; how often is looked
  peer_minttl: atomic(word),
  peer_maxttl: atomic(word),
  peer_gc_mintime: atomic(word),
  peer_gc_maxtime: atomic(word),
})
export const rt_ctl = DEFINE_STATIC('rt_sysctl', SYSCTL)

const MAX_SECONDS = 2_000_000 // in jiffies of 1 ms less than half the clock

function words(dir: string, fields: [keyof rt_sysctl, string, number, number][]): void {
  for (const [field, name, min, max] of fields) sysctl_word(dir + name, () => rt_ctl, field, min, max)
}
/** Kept in jiffies; read and written in units of which a second has so many. */
function times(dir: string, per_second: number, fields: [keyof rt_sysctl, string, number][]): void {
  for (const [field, name, min] of fields)
    register_sysctl(dir + name, {
      get: () => Math.floor(((rt_ctl[field] as number) * per_second) / hz()),
      set(value) {
        if (value < min || value > MAX_SECONDS) return -EINVAL
        rt_ctl[field as 'gc_timeout'] = Math.ceil((value * hz()) / per_second)
        return 0
      },
    })
}

const MAX_JIFFIES = 1_000_000_000
words('net.ipv4.route.', [
  ['gc_thresh', 'gc_thresh', 0, RT_CACHE_ENTRIES],
  ['max_size', 'max_size', 1, RT_CACHE_ENTRIES],
  ['gc_elasticity', 'gc_elasticity', 1, 1024],
  ['redirect_load', 'redirect_load', 0, 1_000_000], // is shifted by up to redirect_number
  ['redirect_number', 'redirect_number', 0, 10],
  ['redirect_silence', 'redirect_silence', 0, MAX_JIFFIES],
  ['error_cost', 'error_cost', 0, MAX_JIFFIES],
  ['error_burst', 'error_burst', 0, MAX_JIFFIES],
  ['min_pmtu', 'min_pmtu', 68, 65535],
  ['min_adv_mss', 'min_adv_mss', 1, 65535 - 40],
])
times('net.ipv4.route.', 1000, [['gc_min_interval', 'gc_min_interval_ms', 0]])
times('net.ipv4.route.', 1, [
  ['gc_min_interval', 'gc_min_interval', 0],
  ['gc_timeout', 'gc_timeout', 1],
  ['gc_interval', 'gc_interval', 1],
  ['mtu_expires', 'mtu_expires', 1],
  ['secret_interval', 'secret_interval', 1],
])
words('net.ipv4.inet_peer_', [['peer_threshold', 'threshold', 1, MAX_INET_PEERS]])
times('net.ipv4.inet_peer_', 1, [
  ['peer_minttl', 'minttl', 0],
  ['peer_maxttl', 'maxttl', 0],
  ['peer_gc_mintime', 'gc_mintime', 1],
  ['peer_gc_maxtime', 'gc_maxtime', 1],
])

/** rt_sysctl_init - what 2.6.11 begins with. @context boot, CPU 0, before the route cache and the peers */
export function rt_sysctl_init(): void {
  rt_ctl.gc_thresh = RT_HASH_BUCKETS
  rt_ctl.max_size = RT_CACHE_ENTRIES
  rt_ctl.gc_elasticity = 8
  rt_ctl.gc_min_interval = hz() >> 1
  rt_ctl.gc_timeout = 300 * hz()
  rt_ctl.gc_interval = 60 * hz()
  rt_ctl.redirect_load = Math.floor(hz() / 50)
  rt_ctl.redirect_number = 9
  rt_ctl.redirect_silence = Math.floor(hz() / 50) << 10
  rt_ctl.error_cost = hz()
  rt_ctl.error_burst = 5 * hz()
  rt_ctl.mtu_expires = 600 * hz()
  rt_ctl.min_pmtu = 512 + 20 + 20
  rt_ctl.min_adv_mss = 256
  rt_ctl.secret_interval = 600 * hz()
  rt_ctl.peer_threshold = INET_PEER_THRESHOLD
  rt_ctl.peer_minttl = 120 * hz()
  rt_ctl.peer_maxttl = 600 * hz()
  rt_ctl.peer_gc_mintime = 10 * hz()
  rt_ctl.peer_gc_maxtime = 120 * hz()
}
