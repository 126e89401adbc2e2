/**
 * udp_hash.ts - who has which UDP port.
 *
 * Lock charter
 *   udp_hash_lock guards the chains, and inet.num of a socket that is on one: lookups in softirqs take it for reading, a
 *   process that binds or closes takes it for writing with bottom halves off. A lookup takes a reference before it drops the
 *   lock. Under it a packet may be queued and its receiver woken (broadcasts); nothing is sent.
 */
import { hlist_add_head, hlist_del_init, hlist_unhashed } from '../../abi/hlist.js'
import { by, bytes, embed, type Layout, layout, own, Struct, word } from '../../abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../abi/section.js'
import { RAM } from '../../arch/ram.js'
import {
  RWLOCK,
  read_lock,
  read_lock_bh,
  read_unlock,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../sync/rwlock.js'
import { sock_hold, sock_put } from '../core/sock.js'
import { SOCK, type sock } from '../core/sock_types.js'
import { INET_SOCK, inet_sk, type inet_sock } from './inet_sock.js'
import { local_port_range } from './ip_sysctl.js'

const i32 = RAM.i32

export const UDP_HTABLE_SIZE = 128

class udp_table extends Struct {
  declare lock: rwlock_t
  declare port_rover: number
  declare hash: number
}
const TABLE: Layout<udp_table> = layout('udp_table', udp_table, {
  lock: embed(RWLOCK),
  port_rover: by('lock', word), // the port that was given out last
  hash: by('lock', bytes(UDP_HTABLE_SIZE * 4)),
})
const table = DEFINE_STATIC('udp_hash', TABLE)
export const udp_hash_lock = table.lock
const HASH = table.hash

/** Counters of the UDP MIB, RFC 1213, in the order of /proc/net/snmp. */
export const UDP_MIB = ['InDatagrams', 'NoPorts', 'InErrors', 'OutDatagrams'] as const
class udp_mib extends Struct {
  declare InDatagrams: number
  declare NoPorts: number
  declare InErrors: number
  declare OutDatagrams: number
}
const MIB: Layout<udp_mib> = layout('udp_mib', udp_mib, {
  InDatagrams: own(word),
  NoPorts: own(word),
  InErrors: own(word),
  OutDatagrams: own(word),
})
export const udp_statistics = DEFINE_PER_CPU('udp_statistics', MIB)
/** This CPU's counters. */
export const udp_stats = udp_statistics.mine

/** A sock's node is where its place on the chain is. */
const NODE = SOCK.offset('sk_node')
function chain(port: number): number {
  return HASH + (port & (UDP_HTABLE_SIZE - 1)) * 4
}
function first(port: number): inet_sock | null {
  return of_node(i32[chain(port) >> 2])
}
function next(inet: inet_sock): inet_sock | null {
  return of_node(inet.sk.sk_node.next)
}
function of_node(node: number): inet_sock | null {
  return node === 0 ? null : INET_SOCK.ref(node - NODE)
}

// ---- ports ----------------------------------------------------------------------------------------------------------

/** May both have the port? */
function conflict(sk: sock, a: inet_sock, b: inet_sock): boolean {
  const sk2 = b.sk
  if (sk2.addr === sk.addr) return false
  if (sk.sk_bound_dev_if !== 0 && sk2.sk_bound_dev_if !== 0 && sk.sk_bound_dev_if !== sk2.sk_bound_dev_if) return false
  if (a.rcv_saddr !== 0 && b.rcv_saddr !== 0 && a.rcv_saddr !== b.rcv_saddr) return false
  return sk.sk_reuse === 0 || sk2.sk_reuse === 0
}

function udp_lport_inuse(num: number): boolean {
  for (let s = first(num); s !== null; s = next(s)) if (s.num === num) return true
  return false
}
/** Within the range, on the same chain. */
function wrap(port: number, low: number, high: number): number {
  return port > high ? low + ((port - low) & (UDP_HTABLE_SIZE - 1)) : port
}
function length(port: number, enough: number): number {
  let size = 0
  for (let s = first(port); s !== null && size < enough; s = next(s)) size++
  return size
}

/** The next one, whatever its chain: of fewer ports than chains, where 2.6.11 can leave the range; or where it finds none. @locks udp_hash_lock for writing */
function pick_any(rover: number, low: number, high: number): number {
  const n = high - low + 1
  for (let k = 0; k < n; k++) {
    const port = low + ((rover - low + k) % n)
    if (!udp_lport_inuse(port)) return port
  }
  return 0
}

/** A free port on the shortest chain. @locks udp_hash_lock for writing @returns 0: there is none */
function pick_port(): number {
  const [low, high] = local_port_range()
  const rover = table.port_rover < low || table.port_rover > high ? low : table.port_rover
  if (high - low < UDP_HTABLE_SIZE) return pick_any(rover, low, high)
  let best_size = 32767
  let best = rover
  for (let k = 0; k < UDP_HTABLE_SIZE && best_size > 0; k++) {
    const size = length(rover + k, best_size)
    if (size < best_size) {
      best_size = size
      best = rover + k
    }
  }
  let result = wrap(best, low, high)
  for (let k = 0; k < (1 << 16) / UDP_HTABLE_SIZE; k++, result = wrap(result + UDP_HTABLE_SIZE, low, high))
    if (!udp_lport_inuse(result)) return result
  return pick_any(rover, low, high)
}

/** udp_v4_get_port - bind to this port, 0: to any. @context process @locks udp_hash_lock @returns 0, or 1: it cannot be had */
export function udp_v4_get_port(sk: sock, snum: number): number {
  const inet = inet_sk(sk)
  write_lock_bh(udp_hash_lock)
  let port = snum
  if (snum === 0) {
    port = pick_port()
    if (port !== 0) table.port_rover = port
  } else {
    for (let s = first(snum); s !== null && port !== 0; s = next(s))
      if (s.num === snum && conflict(sk, inet, s)) port = 0
  }
  if (port !== 0) {
    inet.num = port
    if (hlist_unhashed(sk.sk_node)) {
      sock_hold(sk)
      hlist_add_head(sk.sk_node, chain(port))
    }
  }
  write_unlock_bh(udp_hash_lock)
  return port === 0 ? 1 : 0
}

/** udp_v4_unhash - the port is free again. @context process @locks udp_hash_lock */
export function udp_v4_unhash(sk: sock): void {
  write_lock_bh(udp_hash_lock)
  const hashed = !hlist_unhashed(sk.sk_node)
  if (hashed) {
    hlist_del_init(sk.sk_node)
    inet_sk(sk).num = 0
  }
  write_unlock_bh(udp_hash_lock)
  if (hashed) sock_put(sk)
}

// ---- lookups --------------------------------------------------------------------------------------------------------

/** How well a socket fits, -1: not at all; 8 is all there is. */
function score(s: inet_sock, saddr: number, sport: number, daddr: number, dport: number, dif: number): number {
  if (s.num !== dport) return -1
  let points = 0
  if (s.rcv_saddr !== 0) {
    if (s.rcv_saddr !== daddr) return -1
    points += 2
  }
  if (s.daddr !== 0) {
    if (s.daddr !== saddr) return -1
    points += 2
  }
  if (s.dport !== 0) {
    if (s.dport !== sport) return -1
    points += 2
  }
  if (s.sk.sk_bound_dev_if !== 0) {
    if (s.sk.sk_bound_dev_if !== dif) return -1
    points += 2
  }
  return points
}

/** udp_v4_lookup - whom a datagram is for. @context softirq @locks udp_hash_lock @returns referenced sock, or null */
export function udp_v4_lookup(saddr: number, sport: number, daddr: number, dport: number, dif: number): sock | null {
  let best: inet_sock | null = null
  let most = -1
  read_lock(udp_hash_lock)
  for (let s = first(dport); s !== null && most < 8; s = next(s)) {
    const points = score(s, saddr, sport, daddr, dport, dif)
    if (points > most) {
      best = s
      most = points
    }
  }
  if (best !== null) sock_hold(best.sk)
  read_unlock(udp_hash_lock)
  return best === null ? null : SOCK.ref(best.addr)
}

/**
 * udp_v4_mcast_next - the next socket from `from` on (null: the first of all) that hears a broadcast.
 * @context softirq @locks udp_hash_lock is held
 */
export function udp_v4_mcast_next(
  from: sock | null,
  saddr: number,
  sport: number,
  daddr: number,
  dport: number,
  dif: number,
): sock | null {
  let s = from === null ? first(dport) : next(INET_SOCK.ref(from.addr))
  while (s !== null && score(s, saddr, sport, daddr, dport, dif) < 0) s = next(s)
  return s === null ? null : SOCK.ref(s.addr)
}

/** udp_hash_init - @context boot, CPU 0 */
export function udp_hash_init(): void {
  rwlock_init(udp_hash_lock)
  table.port_rover = 0
}
/** udp_each - the sockets with a port, chain by chain. @context process, or a halted machine @locks udp_hash_lock for reading is held around f */
export function udp_each(f: (inet: inet_sock, bucket: number) => void): void {
  read_lock_bh(udp_hash_lock)
  for (let b = 0; b < UDP_HTABLE_SIZE; b++) for (let s = first(b); s !== null; s = next(s)) f(s, b)
  read_unlock_bh(udp_hash_lock)
}
/** udp_ports_used - sockets with a port. @context any, for /proc/net/sockstat */
export function udp_ports_used(): number {
  let n = 0
  for (let port = 0; port < UDP_HTABLE_SIZE; port++) n += length(port, 65536)
  return n
}
