/**
 * proc_net.ts - the files of /proc/net that list neighbours, sockets and groups, in the columns of 2.6.11. Of sockets this machine
 * knows neither user nor inode: they are 0. Sockets and neighbours are listed under their own locks; who reads `igmp` and `dev_mcast`
 * holds rtnl, or the machine stands still.
 */

import { hz } from '../arch/machine.js'
import { RAM } from '../arch/ram.js'
import { jiffies, timer_pending } from '../irq/timer.js'
import { slabinfo } from '../mm/slab.js'
import { dev_mc_first } from '../net/core/dev_mcast.js'
import { NUD_VALID } from '../net/core/neighbour.js'
import { dev_name, first_netdev } from '../net/core/netdevice.js'
import { neigh_for_each } from '../net/core/nud.js'
import { pneigh_for_each } from '../net/core/pneigh.js'
import { sock_rmem, sock_wmem } from '../net/core/sock_mem.js'
import { NUD_NOARP, NUD_PERMANENT } from '../net/core/types.js'
import { in_dev_get } from '../net/ipv4/devinet.js'
import { igmp_v1_seen } from '../net/ipv4/igmp.js'
import type { inet_sock } from '../net/ipv4/inet_sock.js'
import { first_group } from '../net/ipv4/ip_mc.js'
import { ip_frag_mem, ip_frag_nqueues } from '../net/ipv4/ipq.js'
import { raw_each } from '../net/ipv4/raw_hash.js'
import { udp_each, udp_ports_used } from '../net/ipv4/udp_hash.js'

const i32 = RAM.i32
const u8 = RAM.u8
const USER_HZ = 100

export function hex(n: number, digits = 8): string {
  return (n >>> 0).toString(16).padStart(digits, '0')
}
/** An address as a little-endian machine prints its word in network order. */
export function word_hex(addr: number): string {
  const swapped = (addr << 24) | ((addr & 0xff00) << 8) | ((addr >>> 8) & 0xff00) | (addr >>> 24)
  return hex(swapped).toUpperCase()
}
function dotted(addr: number): string {
  return [24, 16, 8, 0].map(n => (addr >>> n) & 255).join('.')
}

const ATF_COM = 0x02
const ATF_PERM = 0x04
const ATF_PUBL = 0x08

function arp_text(): string {
  let text = 'IP address       HW type     Flags       HW address            Mask     Device\n'
  const line = (ip: number, type: number, flags: number, mac: string, dev: string): void => {
    const [t, f] = [type.toString(16).padEnd(10), flags.toString(16).padEnd(10)]
    text += `${dotted(ip).padEnd(16)} 0x${t}0x${f}${mac}     *        ${dev}\n`
  }
  neigh_for_each(n => {
    if ((n.nud_state & ~NUD_NOARP) === 0) return
    const flags =
      (n.nud_state & NUD_PERMANENT) !== 0 ? ATF_PERM | ATF_COM : (n.nud_state & NUD_VALID) !== 0 ? ATF_COM : 0
    const [hi, lo] = n.ha === 0 ? [0, 0] : [i32[n.ha >> 2]!, i32[(n.ha >> 2) + 1]!]
    const mac = `${hex(hi)}${hex(lo & 0xffff, 4)}`.match(/../g)!.join(':').toUpperCase()
    line(n.primary_key, n.dev!.type, flags, mac, dev_name(n.dev!))
  })
  pneigh_for_each(n => {
    line(
      n.key,
      n.dev === null ? 0 : n.dev.type,
      ATF_PUBL | ATF_PERM,
      '00:00:00:00:00:00',
      n.dev === null ? '*' : dev_name(n.dev),
    )
  })
  return text
}

const SOCKETS = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode'
/** A socket as udp4_format_sock and get_raw_sock print it. */
function inet_line(inet: inet_sock, bucket: number, sport: number, dport: number): string {
  const { sk } = inet
  const place = (addr: number, port: number): string => `${word_hex(addr)}:${hex(port, 4).toUpperCase()}`
  const queues = `${hex(sock_wmem(sk)).toUpperCase()}:${hex(sock_rmem(sk)).toUpperCase()}`
  const state = hex(sk.sk_state, 2).toUpperCase()
  return (
    `${String(bucket).padStart(4)}: ${place(inet.rcv_saddr, sport)} ${place(inet.daddr, dport)} ${state} ${queues} ` +
    `00:00000000 00000000     0        0 0 ${sk.sk_refcnt} ${hex(sk.addr)}`
  )
}
const table = (head: string, lines: string[]): string => [head, ...lines].map(l => `${l.padEnd(127)}\n`).join('')

function udp_text(): string {
  const lines: string[] = []
  udp_each((inet, bucket) => lines.push(inet_line(inet, bucket, inet.num, inet.dport)))
  return table(SOCKETS, lines)
}
function raw_sockets(): string[] {
  const lines: string[] = []
  raw_each((inet, protocol) => lines.push(inet_line(inet, protocol, protocol, 0)))
  return lines
}

function sockstat(): string {
  return (
    `sockets: used ${slabinfo().find(c => c.name === 'socket')?.used ?? 0}\nUDP: inuse ${udp_ports_used()}\nRAW: inuse ${raw_sockets().length}\n` +
    `FRAG: inuse ${ip_frag_nqueues()} memory ${ip_frag_mem()}\n`
  )
}

function igmp_text(): string {
  let text = 'Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n'
  for (let dev = first_netdev(); dev !== null; dev = dev.next) {
    const in_dev = in_dev_get(dev)
    if (in_dev === null) continue
    let groups = ''
    let count = 0
    for (let im = first_group(in_dev); im !== null; im = im.next, count++) {
      const runs = timer_pending(im.timer)
      const ticks = runs ? Math.floor((((im.timer.expires - jiffies()) | 0) * USER_HZ) / hz()) : 0
      groups += `\t\t\t\t${word_hex(im.multiaddr)} ${String(im.users).padStart(5)} ${runs ? 1 : 0}:${hex(ticks).toUpperCase()}\t\t${im.reporter}\n`
    }
    const querier = igmp_v1_seen(in_dev) ? 'V1' : 'V2'
    text += `${dev.ifindex}\t${dev_name(dev).padEnd(10)}: ${String(count).padStart(5)} ${querier.padStart(7)}\n${groups}`
  }
  return text
}

function dev_mcast(): string {
  let text = ''
  for (let dev = first_netdev(); dev !== null; dev = dev.next)
    for (let mc = dev_mc_first(dev); mc !== null; mc = mc.next) {
      const addr = [...u8.subarray(mc.addr8, mc.addr8 + mc.alen)].map(b => hex(b, 2)).join('')
      const [index, users, gusers] = [dev.ifindex, mc.users, mc.gusers].map(String)
      text += `${index!.padEnd(4)} ${dev_name(dev).padEnd(15)} ${users!.padEnd(5)} ${gusers!.padEnd(5)} ${addr}\n`
    }
  return text
}

export const net_files: Record<string, () => string> = {
  '/proc/net/arp': arp_text,
  '/proc/net/udp': udp_text,
  '/proc/net/raw': () => table(SOCKETS, raw_sockets()),
  '/proc/net/sockstat': sockstat,
  '/proc/net/igmp': igmp_text,
  '/proc/net/dev_mcast': dev_mcast,
}
