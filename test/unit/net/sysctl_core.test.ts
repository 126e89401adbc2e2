/** net.core.*, net.unix.* and ip_local_port_range: what 2.6.11 begins with, and that each changes what it says. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { afterEach, describe, expect, test } from 'vitest'
import { EADDRINUSE, EINVAL, ENOBUFS, ENOENT, ENOMEM } from '../../../src/lib/errno.js'
import { NETDEV_MAX_BACKLOG, WEIGHT_P } from '../../../src/lib/limits.js'
import { netif_rx } from '../../../src/net/core/dev.js'
import { fate_received } from '../../../src/net/core/fate.js'
import { dev_get_by_name, dev_put } from '../../../src/net/core/netdevice.js'
import { alloc_skb, skb_put } from '../../../src/net/core/skbuff.js'
import { softnet_datas } from '../../../src/net/core/softnet_data.js'
import { netdev_rx_stat } from '../../../src/net/core/stats.js'
import { find_sysctl, sysctl_names, sysctl_read, sysctl_write } from '../../../src/net/core/sysctl.js'
import { ACCT_RX } from '../../../src/net/core/types.js'
import { attach_filter, RET_K } from '../../../src/user/bpf.js'
import {
  bind,
  getsockname,
  getsockopt,
  inet_addr,
  type Libc,
  load32,
  malloc,
  sendmsg,
  sendto,
  set_word,
  sin_port,
  sockaddr_in,
  sockaddr_un,
  socket,
  store32,
  variable,
} from '../../../src/user/libc.js'
import { run } from '../../helpers/programs.js'
import { Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [{ addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] }],
  config: { loopback: 1, user_procs: 4, rx_arch: 1 },
})
const [SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, MSG_DONTWAIT] = [1, 7, 8, 0x40] as const
const DEFAULTS = Object.fromEntries(sysctl_names().map(name => [name, sysctl_read(name)!]))
const core = (name: string, value: number): number => sysctl_write(`net.core.${name}`, value)
afterEach(() => {
  for (const [name, values] of Object.entries(DEFAULTS))
    if (/^net\.(core|unix)|range$/.test(name)) sysctl_write(name, values)
})

function* buffers(set?: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const told: number[] = []
  for (const name of [SO_RCVBUF, SO_SNDBUF]) {
    if (set !== undefined) yield* set_word(fd, SOL_SOCKET, name, set)
    const value = variable()
    yield* getsockopt(fd, SOL_SOCKET, name, value, variable(4))
    told.push(load32(value))
  }
  return told[0]! * 100_000 + told[1]!
}

describe('buffers of sockets', () => {
  test('rmem_default, wmem_default: of new ones', () => {
    core('rmem_default', 5000)
    core('wmem_default', 6000)
    expect(run(s, () => buffers())).toBe(500_006_000)
  })
  test('rmem_max, wmem_max: what a program gets at most, doubled', () => {
    core('rmem_max', 1000)
    core('wmem_max', 3000)
    expect(run(s, () => buffers(50_000))).toBe(200_006_000)
    expect(run(s, () => buffers(0))).toBe(25_602_048)
    expect(core('rmem_max', -1)).toBe(-EINVAL)
  })
  test('optmem_max: of filters, and of ancillary data', () => {
    const program = function* (): Libc {
      const fd = yield* socket(2, 2, 0)
      const msg = malloc(28)
      store32(msg + 16, malloc(128))
      store32(msg + 20, 128)
      return (yield* attach_filter(fd, [{ code: RET_K, jt: 0, jf: 0, k: 9 }])) * 1000 + (yield* sendmsg(fd, msg, 0))
    }
    core('optmem_max', 100)
    expect(run(s, program)).toBe(-ENOBUFS)
    core('optmem_max', 16)
    expect(run(s, program)).toBe(-ENOMEM * 1000 - ENOBUFS)
  })
})

test('net.unix.max_dgram_qlen: messages that a new socket holds', () => {
  sysctl_write('net.unix.max_dgram_qlen', 3)
  const sent = run(s, function* () {
    const [to, from] = [yield* socket(1, 2, 0), yield* socket(1, 2, 0)]
    const name = malloc(110)
    const len = sockaddr_un(name, '\0queue')
    yield* bind(to, name, len)
    let n = 0
    while ((yield* sendto(from, name, 4, MSG_DONTWAIT, name, len)) === 4) n++
    return n
  })
  expect(sent).toBe(4) // one more than that, as in 2.6.11
})

describe('ip_local_port_range', () => {
  const range = 'net.ipv4.ip_local_port_range'
  const ports = (n: number): number[] => {
    const got: number[] = []
    run(s, function* () {
      for (let k = 0; k < n; k++) {
        const fd = yield* socket(2, 2, 0)
        const name = sockaddr_in(malloc(16), inet_addr('127.0.0.1'), 0)
        const err = yield* bind(fd, name, 16)
        if (err === 0) yield* getsockname(fd, name, variable(16))
        got.push(err === 0 ? sin_port(name) : err)
      }
      return 0
    })
    return got
  }
  test('two numbers, of which the first one alone can be written', () => {
    expect(sysctl_read(range)).toEqual([32768, 61000])
    expect(sysctl_write(range, [5000, 5003])).toBe(0)
    expect(sysctl_write(range, 5001)).toBe(0)
    expect(sysctl_read(range)).toEqual([5001, 5003])
    for (const bad of [[], [0, 9], [1, 65536], [9, 8], [1, 2, 3], [1.5]]) expect(sysctl_write(range, bad)).toBe(-EINVAL)
    expect(sysctl_write('net.ipv4.ip_local_ports', [1])).toBe(-ENOENT)
    expect(find_sysctl(range)).toBeNull()
  })
  test('ports are given out of it, each once, until there are none', () => {
    sysctl_write(range, [5000, 5003])
    expect(ports(5).sort((a, b) => a - b)).toEqual([-EADDRINUSE, 5000, 5001, 5002, 5003])
    sysctl_write(range, [6000, 6200])
    const many = ports(150)
    expect(new Set(many).size).toBe(150)
    expect([Math.min(...many) >= 6000, Math.max(...many) <= 6200]).toEqual([true, true])
  })
})

describe('the backlog of a CPU', () => {
  const dev = dev_get_by_name('eth0')!
  /** So many packets at once. @returns how many found no room */
  const burst = (n: number): number => {
    const before = netdev_rx_stat.mine.dropped
    for (let k = 0; k < n; k++) {
      const skb = alloc_skb(64)!
      skb_put(skb, 64)
      skb.dev = dev
      skb.protocol = 0x88b5
      skb.acct = ACCT_RX
      fate_received()
      netif_rx(skb)
    }
    const dropped = netdev_rx_stat.mine.dropped - before
    s.pass(5)
    return dropped
  }
  test('netdev_max_backlog: one more than so many wait', () => {
    expect([NETDEV_MAX_BACKLOG, burst(310)]).toEqual([300, 9])
    core('netdev_max_backlog', 20)
    expect(burst(310)).toBe(289)
    expect(core('netdev_max_backlog', 0)).toBe(-EINVAL)
  })
  test('dev_weight: a round takes so many', () => {
    expect([WEIGHT_P, sysctl_read('net.core.dev_weight')]).toEqual([64, [64]])
    const rounds = (): number => {
      const { polls } = netdev_rx_stat.mine
      burst(100)
      return netdev_rx_stat.mine.polls - polls
    }
    rounds()
    const before = rounds()
    core('dev_weight', 10)
    rounds()
    expect([before, rounds()]).toEqual([2, 11])
  })
  test('no_cong, lo_cong, mod_cong: how full it is said to be', () => {
    core('no_cong', 0)
    core('lo_cong', 0)
    core('mod_cong', 0)
    burst(50)
    expect(softnet_datas.mine.cng_level).toBe(4)
  })
  test('is left as it was', () => dev_put(dev))
})

test('nothing leaks', () => {
  expect(s.solo.audit()).toEqual([])
})
