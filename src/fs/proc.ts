/** proc.ts - the files of /proc as text. They are read by processes, or by the host from a machine that stands still. */

import { call } from '../abi/symbol.js'
import { CONTEXT_NAMES, CPU_STAT, cpu_area } from '../arch/cpu.js'
import { irq_line, LINE_RAISED, LINE_WIRED } from '../arch/irqchip.js'
import { config, hz, num_cpus } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { irq_disabled, irq_stats } from '../irq/interrupt.js'
import { jiffies } from '../irq/timer.js'
import { NR_IRQS } from '../lib/limits.js'
import { kfree, kmalloc } from '../mm/kmalloc.js'
import { slabinfo } from '../mm/slab.js'
import { dev_name, first_netdev } from '../net/core/netdevice.js'
import { netdev_rx_stat } from '../net/core/stats.js'
import { DEV_STATS, type net_device } from '../net/core/types.js'
import { ipv4_devconf_all } from '../net/ipv4/devconf.js'
import { fn_hash_dump, ip_fib_main_table } from '../net/ipv4/fib_hash.js'
import { fib_nh_of, RTN_PROHIBIT, RTN_UNREACHABLE } from '../net/ipv4/fib_types.js'
import { icmp_statistics } from '../net/ipv4/icmp.js'
import { ip_ctl } from '../net/ipv4/ip_sysctl.js'
import { ip_statistics } from '../net/ipv4/mib.js'
import { ip_conntrack_text } from '../net/ipv4/netfilter/ip_conntrack_standalone.js'
import { ipq_text } from '../net/ipv4/netfilter/ip_queue.js'
import { ipt_tables } from '../net/ipv4/netfilter/ip_tables_user.js'
import { hashlimit_names, hashlimit_text } from '../net/ipv4/netfilter/ipt_hashlimit.js'
import { recent_names, recent_text } from '../net/ipv4/netfilter/ipt_recent.js'
import { rt_cache_stats, rt_entries } from '../net/ipv4/route.js'
import { IP_MIB } from '../net/ipv4/types.js'
import { UDP_MIB, udp_statistics } from '../net/ipv4/udp_hash.js'
import { inet_make_mask } from '../net/wire/ipv4.js'
import { kmsg_text } from '../sched/printk.js'
import { hex, net_files, word_hex } from './proc_net.js'
import '../net/ipv4/netfilter/modules.js'
import { modules_text } from '../sched/module.js'
import { nr_switches } from '../sched/sched.js'

const i32 = RAM.i32
const f64 = RAM.f64
const USER_HZ = 100

function cpus(): number[] {
  return Array.from({ length: num_cpus() }, (_, cpu) => cpu)
}

function softnet_stat(): string {
  const lines = cpus().map(cpu => {
    const s = netdev_rx_stat.cpu(cpu)
    const columns = [
      s.total,
      s.dropped,
      s.time_squeeze,
      s.throttled,
      s.fastroute_hit,
      s.fastroute_success,
      s.fastroute_defer,
      s.fastroute_deferred_out,
      s.cpu_collision,
    ]
    return columns.map(n => hex(n)).join(' ')
  })
  return `${lines.join('\n')}\n`
}

/** dev_stats - the counters of a device under their names. */
export function dev_stats(dev: net_device): Record<string, number> {
  const at = kmalloc(64)
  if (at === 0) return {}
  if (dev.get_stats !== 0) call(dev.get_stats)(dev, at)
  const stats = Object.fromEntries(DEV_STATS.map((name, k) => [name, i32[(at >> 2) + k] >>> 0]))
  kfree(at)
  return stats
}

function net_dev(): string {
  let text =
    'Inter-|   Receive                                                |  Transmit\n' +
    ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n'
  for (let dev = first_netdev(); dev !== null; dev = dev.next) {
    const s = dev_stats(dev)
    const rx = [
      s.rx_bytes,
      s.rx_packets,
      s.rx_errors,
      (s.rx_dropped ?? 0) + (s.rx_missed_errors ?? 0),
      0,
      s.rx_over_errors,
      0,
      0,
    ]
    const tx = [s.tx_bytes, s.tx_packets, s.tx_errors, s.tx_dropped, 0, 0, 0, 0]
    text += `${dev_name(dev).padStart(6)}:${rx.join(' ')} ${tx.join(' ')}\n`
  }
  return text
}

function proc_stat(): string {
  const row = (cpu: number): number[] =>
    CONTEXT_NAMES.map((_, k) => Math.floor((f64[((cpu_area(cpu) + CPU_STAT) >> 3) + k]! * USER_HZ) / 1e9))
  const rows = cpus().map(row)
  const total = CONTEXT_NAMES.map((_, k) => rows.reduce((sum, r) => sum + r[k]!, 0))
  const lines = [`cpu  ${total.join(' ')}`, ...rows.map((r, cpu) => `cpu${cpu} ${r.join(' ')}`)]
  lines.push(`intr ${cpus().reduce((sum, cpu) => sum + irq_stats.cpu(cpu).total, 0)}`)
  lines.push(`ctxt ${cpus().reduce((sum, cpu) => sum + nr_switches(cpu), 0)}`)
  return `${lines.join('\n')}\n`
}

function interrupts(): string {
  let text = `           ${cpus()
    .map(cpu => `CPU${cpu}`.padEnd(11))
    .join('')}\n`
  const line = (name: string, counts: number[], what: string): string =>
    `${name.padStart(4)}: ${counts.map(n => String(n).padStart(10)).join(' ')}   ${what}\n`
  for (let irq = 0; irq < NR_IRQS; irq++) {
    if (i32[(irq_line(irq) + LINE_WIRED) >> 2] === 0) continue
    const counts = cpus().map(cpu => i32[(irq_stats.cpu(cpu).lines >> 2) + irq])
    text += line(
      String(irq),
      counts,
      `level  nic${Math.floor(irq / config('nqueues'))}  raised ${i32[(irq_line(irq) + LINE_RAISED) >> 2]}${irq_disabled(irq) ? '  disabled: nobody cared' : ''}`,
    )
  }
  text += line(
    'LOC',
    cpus().map(cpu => irq_stats.cpu(cpu).timer),
    'timer',
  )
  text += line(
    'RES',
    cpus().map(cpu => irq_stats.cpu(cpu).resched),
    'rescheduling',
  )
  text += line(
    'CAL',
    cpus().map(cpu => irq_stats.cpu(cpu).call),
    'function calls',
  )
  return text
}

const sum = (read: (cpu: number) => number): number => cpus().reduce((n, cpu) => n + read(cpu), 0)

function snmp(): string {
  const names = IP_MIB.filter(name => name !== 'InTruncatedPkts')
  const ip = names.map(name => sum(cpu => ip_statistics.cpu(cpu)[name]))
  const udp = UDP_MIB.map(name => sum(cpu => udp_statistics.cpu(cpu)[name]))
  const icmp = ICMP_MIB.map(name => sum(cpu => icmp_statistics.cpu(cpu)[name]))
  return (
    `Ip: Forwarding DefaultTTL ${names.join(' ')}\nIp: ${ipv4_devconf_all.forwarding !== 0 ? 1 : 2} ${ip_ctl.default_ttl} ${ip.join(' ')}\n` +
    `Icmp: ${ICMP_MIB.join(' ')}\nIcmp: ${icmp.join(' ')}\n` +
    `Udp: ${UDP_MIB.join(' ')}\nUdp: ${udp.join(' ')}\n`
  )
}
function netstat(): string {
  return `IpExt: InTruncatedPkts\nIpExt: ${sum(cpu => ip_statistics.cpu(cpu).InTruncatedPkts)}\n`
}
const ICMP_MIB = [
  'InMsgs',
  'InErrors',
  'InDestUnreachs',
  'InTimeExcds',
  'InParmProbs',
  'InSrcQuenchs',
  'InRedirects',
  'InEchos',
  'InEchoReps',
  'InTimestamps',
  'InTimestampReps',
  'InAddrMasks',
  'InAddrMaskReps',
  'OutMsgs',
  'OutErrors',
  'OutDestUnreachs',
  'OutTimeExcds',
  'OutParmProbs',
  'OutSrcQuenchs',
  'OutRedirects',
  'OutEchoReps',
  'OutTimestampReps',
  'OutRateLimited',
] as const

function rt_cache_text(): string {
  const names = [
    'in_hit',
    'in_slow_tot',
    'in_no_route',
    'in_brd',
    'in_martian_dst',
    'in_martian_src',
    'out_hit',
    'out_slow_tot',
    'gc_total',
    'gc_ignored',
    'gc_goal_miss',
    'gc_dst_overflow',
  ] as const
  const lines = cpus().map(cpu =>
    [rt_entries(), ...names.map(name => rt_cache_stats.cpu(cpu)[name])].map(n => hex(n)).join(' '),
  )
  return `entries ${names.join(' ')}\n${lines.join('\n')}\n`
}

const RTF_UP = 0x0001
const RTF_GATEWAY = 0x0002
const RTF_HOST = 0x0004
const RTF_REJECT = 0x0200

/** As fib_node_get_info: the first next hop of each route, lines of 127 columns. */
function route_text(): string {
  const head = 'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT'
  const lines = [head]
  fn_hash_dump(ip_fib_main_table, ({ dst, prefixlen, type, info }) => {
    const nh = info.fib_nhs > 0 ? fib_nh_of(info, 0) : null
    const gw = nh === null ? 0 : nh.nh_gw
    const reject = type === RTN_UNREACHABLE || type === RTN_PROHIBIT ? RTF_REJECT : 0
    const flags = RTF_UP | reject | (gw !== 0 ? RTF_GATEWAY : 0) | (prefixlen === 32 ? RTF_HOST : 0)
    const name = nh === null || nh.nh_dev === null ? '*' : dev_name(nh.nh_dev)
    const columns = [
      name,
      word_hex(dst),
      word_hex(gw),
      flags.toString(16).toUpperCase().padStart(4, '0'),
      0,
      0,
      info.fib_priority,
      word_hex(inet_make_mask(prefixlen)),
      0,
      0,
      0,
    ]
    lines.push(columns.join('\t'))
  })
  return `${lines.map(line => line.padEnd(127)).join('\n')}\n`
}

function slab_text(): string {
  return slabinfo()
    .map(
      c =>
        `${c.name.padEnd(20)} ${String(c.used).padStart(7)} ${String(c.total).padStart(7)} ${String(c.size).padStart(7)} : failed ${c.failed}`,
    )
    .join('\n')
    .concat('\n')
}

const files: Record<string, () => string> = {
  ...net_files,
  '/proc/net/softnet_stat': softnet_stat,
  '/proc/net/dev': net_dev,
  '/proc/net/snmp': snmp,
  '/proc/net/netstat': netstat,
  '/proc/net/stat/rt_cache': rt_cache_text,
  '/proc/net/route': route_text,
  '/proc/stat': proc_stat,
  '/proc/interrupts': interrupts,
  '/proc/slabinfo': slab_text,
  '/proc/kmsg': kmsg_text,
  '/proc/net/ip_tables_names': () =>
    ipt_tables()
      .map(name => `${name}\n`)
      .join(''),
  '/proc/net/ip_conntrack': ip_conntrack_text,
  '/proc/modules': modules_text,
  '/proc/net/ip_queue': ipq_text,
  '/proc/uptime': () => `${(jiffies() / hz()).toFixed(2)}\n`,
}

/** Directories whose files come and go: names, and the text of one. */
const directories: Record<string, { names: () => string[]; text: (name: string) => string | null }> = {
  '/proc/net/ipt_recent': { names: recent_names, text: recent_text },
  '/proc/net/ipt_hashlimit': { names: hashlimit_names, text: hashlimit_text },
}

/** proc_read - text of a file, or null. */
export function proc_read(path: string): string | null {
  const slash = path.lastIndexOf('/')
  return files[path]?.() ?? directories[path.slice(0, slash)]?.text(path.slice(slash + 1)) ?? null
}
/** proc_files - what there is. */
export function proc_files(): string[] {
  const found = Object.entries(directories).flatMap(([dir, { names }]) => names().map(name => `${dir}/${name}`))
  return [...Object.keys(files), ...found]
}
