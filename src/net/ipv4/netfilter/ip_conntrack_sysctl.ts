/**
 * ip_conntrack_sysctl.ts - net.ipv4.netfilter.ip_conntrack_*: timeouts in seconds, and how strict TCP's tracker is. They are there
 * from boot on, whether the module is loaded or not (in 2.6.11 they come and go with it). No lock: each is one word.
 */
import { atomic, type Layout, layout, Struct, word } from '../../../abi/layout.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { MAX_CONNTRACKS } from '../../../lib/limits.js'
import { sysctl_word } from '../../core/sysctl.js'

export class conntrack_sysctl extends Struct {
  declare max: number
  declare tcp_timeout_syn_sent: number
  declare tcp_timeout_syn_recv: number
  declare tcp_timeout_established: number
  declare tcp_timeout_fin_wait: number
  declare tcp_timeout_close_wait: number
  declare tcp_timeout_last_ack: number
  declare tcp_timeout_time_wait: number
  declare tcp_timeout_close: number
  declare tcp_timeout_max_retrans: number
  declare tcp_loose: number
  declare tcp_be_liberal: number
  declare tcp_max_retrans: number
  declare udp_timeout: number
  declare udp_timeout_stream: number
  declare icmp_timeout: number
  declare generic_timeout: number
}
const SYSCTL: Layout<conntrack_sysctl> = layout('ip_conntrack_sysctl', conntrack_sysctl, {
  max: atomic(word),
  tcp_timeout_syn_sent: atomic(word),
  tcp_timeout_syn_recv: atomic(word),
  tcp_timeout_established: atomic(word),
  tcp_timeout_fin_wait: atomic(word),
  tcp_timeout_close_wait: atomic(word),
  tcp_timeout_last_ack: atomic(word),
  tcp_timeout_time_wait: atomic(word),
  tcp_timeout_close: atomic(word),
  tcp_timeout_max_retrans: atomic(word), // of a segment that came tcp_max_retrans times again
  tcp_loose: atomic(word), // packets of each end without a check, where a connection is picked up in the middle; 0: none is
  tcp_be_liberal: atomic(word), // 1: a segment out of the window is no reason to be INVALID
  tcp_max_retrans: atomic(word),
  udp_timeout: atomic(word),
  udp_timeout_stream: atomic(word),
  icmp_timeout: atomic(word),
  generic_timeout: atomic(word),
})
export const ct_sysctl = DEFINE_STATIC('ip_conntrack_sysctl', SYSCTL)

const MAX_SECONDS = 2_000_000 // that many jiffies of 1 ms are still less than half the clock
/** Default and maximum. */
const VALUES: [keyof conntrack_sysctl, number, number][] = [
  ['max', MAX_CONNTRACKS, MAX_CONNTRACKS],
  ['tcp_timeout_syn_sent', 120, MAX_SECONDS],
  ['tcp_timeout_syn_recv', 60, MAX_SECONDS],
  ['tcp_timeout_established', 5 * 86400, MAX_SECONDS],
  ['tcp_timeout_fin_wait', 120, MAX_SECONDS],
  ['tcp_timeout_close_wait', 60, MAX_SECONDS],
  ['tcp_timeout_last_ack', 30, MAX_SECONDS],
  ['tcp_timeout_time_wait', 120, MAX_SECONDS],
  ['tcp_timeout_close', 10, MAX_SECONDS],
  ['tcp_timeout_max_retrans', 300, MAX_SECONDS],
  ['tcp_loose', 3, 255],
  ['tcp_be_liberal', 0, 1],
  ['tcp_max_retrans', 3, 255],
  ['udp_timeout', 30, MAX_SECONDS],
  ['udp_timeout_stream', 180, MAX_SECONDS],
  ['icmp_timeout', 30, MAX_SECONDS],
  ['generic_timeout', 600, MAX_SECONDS],
]
for (const [name, , max] of VALUES) {
  const min = name === 'max' ? 1 : 0
  sysctl_word(`net.ipv4.netfilter.ip_conntrack_${name}`, () => ct_sysctl, name, min, max)
}

/** ip_conntrack_sysctl_init - @context boot, CPU 0 */
export function ip_conntrack_sysctl_init(): void {
  for (const [name, value] of VALUES) ct_sysctl[name as 'max'] = value
}
