/** sysctl_net_core.ts - net.core.*: limits of sockets and of the backlog. No lock: each is one word, read whenever it is needed. */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { NETDEV_MAX_BACKLOG, OPTMEM_MAX, WEIGHT_P } from '../../lib/limits.js'
import { SOMAXCONN } from './sock_types.js'
import { sysctl_word } from './sysctl.js'
import { SKB } from './types.js'

export class core_sysctl extends Struct {
  declare rmem_max: number
  declare wmem_max: number
  declare rmem_default: number
  declare wmem_default: number
  declare optmem_max: number
  declare somaxconn: number
  declare max_backlog: number
  declare weight: number
  declare no_cong: number
  declare lo_cong: number
  declare mod_cong: number
}
const SYSCTL: Layout<core_sysctl> = layout('core_sysctl', core_sysctl, {
  // bytes: what a program may ask for (and gets twice of), and what a new socket begins with
  rmem_max: atomic(word),
  wmem_max: atomic(word),
  rmem_default: atomic(word),
  wmem_default: atomic(word),
  optmem_max: atomic(word), // of a socket's options
  somaxconn: atomic(word), // the largest backlog of listen
  max_backlog: atomic(word), // packets on a CPU's backlog, and the budget of net_rx_action
  weight: atomic(word), // packets that the backlog may have in one round
  // packets on the backlog on average, up to which there is no congestion, little, some
  no_cong: atomic(word),
  lo_cong: atomic(word),
  mod_cong: atomic(word),
})
export const core_ctl = DEFINE_STATIC('core_sysctl', SYSCTL)

const INT_MAX = 0x7fffffff
for (const field of ['rmem_max', 'wmem_max', 'rmem_default', 'wmem_default', 'optmem_max', 'somaxconn'] as const)
  sysctl_word(`net.core.${field}`, () => core_ctl, field, 0, INT_MAX)
for (const field of ['no_cong', 'lo_cong', 'mod_cong'] as const)
  sysctl_word(`net.core.${field}`, () => core_ctl, field, 0, INT_MAX)
// With a budget of none the softirq would go round for ever.
sysctl_word('net.core.netdev_max_backlog', () => core_ctl, 'max_backlog', 1, INT_MAX)
sysctl_word('net.core.dev_weight', () => core_ctl, 'weight', 1, INT_MAX)

/** net_core_sysctl_init - what 2.6.11 begins with. @context boot, CPU 0, before anybody reads them */
export function net_core_sysctl_init(): void {
  const sk_mem = (SKB.size + 256) * 256 // 256 packets of 256 bytes, and what the kernel needs for each
  for (const field of ['rmem_max', 'wmem_max', 'rmem_default', 'wmem_default'] as const) core_ctl[field] = sk_mem
  core_ctl.optmem_max = OPTMEM_MAX
  core_ctl.somaxconn = SOMAXCONN
  core_ctl.max_backlog = NETDEV_MAX_BACKLOG
  core_ctl.weight = WEIGHT_P
  core_ctl.no_cong = 20
  core_ctl.lo_cong = 100
  core_ctl.mod_cong = 290
}
