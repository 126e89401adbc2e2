/** ip_sysctl.ts - net.ipv4.ip_*, ipfrag_* and icmp_ignore_bogus_error_responses. No lock: each is one word, read whenever it is needed. */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { hz } from '../../arch/machine.js'
import { EINVAL } from '../../lib/errno.js'
import { register_sysctl, register_sysctl_vector, sysctl_word } from '../core/sysctl.js'

export class ipv4_sysctl extends Struct {
  declare default_ttl: number
  declare no_pmtu_disc: number
  declare nonlocal_bind: number
  declare frag_high_thresh: number
  declare frag_low_thresh: number
  declare frag_time: number
  declare frag_secret_interval: number
  declare ignore_bogus_errors: number
  declare local_ports: number
}
const SYSCTL: Layout<ipv4_sysctl> = layout('ipv4_sysctl', ipv4_sysctl, {
  default_ttl: atomic(word), // of packets whose socket and route say nothing
  no_pmtu_disc: atomic(word), // 1: new sockets let routers cut, and routes learn no MTU
  nonlocal_bind: atomic(word), // 1: any address may be bound to
  // bytes of truesize: above the first one the oldest datagrams in pieces go, until there are no more than the second
  frag_high_thresh: atomic(word),
  frag_low_thresh: atomic(word),
  // jiffies
  frag_time: atomic(word),
  frag_secret_interval: atomic(word),
  ignore_bogus_errors: atomic(word), // 1: errors about broadcasts count like others
  local_ports: atomic(word), // given out by themselves: the first and, in the lower half, the last, so that who reads has a pair
})
export const ip_ctl = DEFINE_STATIC('ipv4_sysctl', SYSCTL)

const MAX_BYTES = 0x7fffffff
const MAX_SECONDS = 2_000_000 // in jiffies of 1 ms less than half the clock

sysctl_word('net.ipv4.ip_default_ttl', () => ip_ctl, 'default_ttl', 1, 255)
sysctl_word('net.ipv4.ip_no_pmtu_disc', () => ip_ctl, 'no_pmtu_disc', 0, 1)
sysctl_word('net.ipv4.ip_nonlocal_bind', () => ip_ctl, 'nonlocal_bind', 0, 1)
sysctl_word('net.ipv4.ipfrag_high_thresh', () => ip_ctl, 'frag_high_thresh', 0, MAX_BYTES)
sysctl_word('net.ipv4.ipfrag_low_thresh', () => ip_ctl, 'frag_low_thresh', 0, MAX_BYTES)
sysctl_word('net.ipv4.icmp_ignore_bogus_error_responses', () => ip_ctl, 'ignore_bogus_errors', 0, 1)
for (const [name, field] of [
  ['ipfrag_time', 'frag_time'],
  ['ipfrag_secret_interval', 'frag_secret_interval'],
] as const)
  register_sysctl(`net.ipv4.${name}`, {
    get: () => Math.floor(ip_ctl[field] / hz()),
    set(value) {
      if (value < 1 || value > MAX_SECONDS) return -EINVAL
      ip_ctl[field] = value * hz()
      return 0
    },
  })

/** local_port_range - the first and the last port that is given out by itself. @context any */
export function local_port_range(): [low: number, high: number] {
  const ports = ip_ctl.local_ports
  return [ports >>> 16, ports & 0xffff]
}
function set_local_port_range(low: number, high: number): void {
  ip_ctl.local_ports = (low << 16) | high
}
register_sysctl_vector('net.ipv4.ip_local_port_range', {
  get: local_port_range,
  set([low, high]) {
    if (low! < 1 || high! > 65535 || low! > high!) return -EINVAL // 2.6.11 takes an empty one
    set_local_port_range(low!, high!)
    return 0
  },
})

/** ip_sysctl_init - what 2.6.11 begins with. @context boot, CPU 0, before anybody reads them */
export function ip_sysctl_init(): void {
  ip_ctl.default_ttl = 64
  ip_ctl.no_pmtu_disc = 0
  ip_ctl.nonlocal_bind = 0
  ip_ctl.frag_high_thresh = 256 * 1024
  ip_ctl.frag_low_thresh = 192 * 1024
  ip_ctl.frag_time = 30 * hz()
  ip_ctl.frag_secret_interval = 600 * hz()
  ip_ctl.ignore_bogus_errors = 0
  set_local_port_range(32768, 61000) // as on a machine with enough memory
}
