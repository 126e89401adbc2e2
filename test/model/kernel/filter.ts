/**
 * A process on CPU 0 gives its UDP socket one filter after the other, takes them off, and closes it; one on CPU 1 sends to it meanwhile,
 * so that the filter runs there. Each packet is seen by one whole filter: the two want 10 and 20 bytes of it, or all. The broken
 * twin runs the filter as if nobody could take it away.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { fget, fput_test } from '../../../src/fs/file.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { sk_run_filter } from '../../../src/net/core/filter.js'
import { alloc_skb, kfree_skb, skb_put } from '../../../src/net/core/skbuff.js'
import { SOCK, SOCKET } from '../../../src/net/core/sock_types.js'
import { run_program } from '../../../src/syscall/process.js'
import { attach_filter, type Insn, RET_K } from '../../../src/user/bpf.js'
import {
  bind,
  close,
  type Libc,
  malloc,
  recv,
  sched_yield,
  sendto,
  setsockopt,
  sockaddr_in,
  socket,
} from '../../../src/user/libc.js'
import { clock_chip, cpu, eth_ports, nothing_leaked, power_on, secondary } from './machine.js'

export interface FilterArgs {
  datagrams: number
  /** So often is each filter put on. */
  rounds: number
  ticks: number
  twin?: boolean
}

class result extends Struct {
  declare sk: number
  declare ended: number
  declare cut: number
  declare whole: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('filter_result', result, {
  sk: word,
  ended: word,
  cut: word, // packets that a filter shortened
  whole: word,
  wrong: word,
})
const r = DEFINE_STATIC('filter_result', RESULT)
const ENDED = r.addr + RESULT.offset('ended')
const PORT = 700
const SIZE = 100
const EAGAIN = -11
const [SOL_SOCKET, SO_DETACH_FILTER, MSG_DONTWAIT] = [1, 27, 0x40]
const UDP_HLEN = 8

/** Wants so many bytes, after as many steps as fit a schedule. */
const wants = (n: number): Insn[] => [
  ...Array.from({ length: 3 }, () => ({ code: 0x80, jt: 0, jf: 0, k: 0 })),
  { code: RET_K, jt: 0, jf: 0, k: n },
]

function* look(fd: number, buf: number): Libc {
  const got = yield* recv(fd, buf, 128, MSG_DONTWAIT)
  if (got === SIZE) r.whole++
  else if (got === 10 || got === 20) r.cut++
  else if (got !== EAGAIN) r.wrong = got
  return got
}
const owner_sym = symbol('test_filter_owner', function* (rounds: number): Libc {
  const buf = malloc(128)
  const fd = yield* socket(2, 2, 0)
  yield* bind(fd, sockaddr_in(buf, 0, PORT), 16)
  const filp = fget(fd)!
  store(r.addr, SOCKET.ref(filp.private_data).sk!.addr)
  fput_test(filp)
  for (let k = 0; k < rounds; k++) {
    for (const n of [10, 20]) {
      if ((yield* attach_filter(fd, wants(UDP_HLEN + n))) !== 0) r.wrong = 1
      yield* look(fd, buf)
    }
    if ((yield* setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, buf, 4)) !== 0) r.wrong = 2
    yield* look(fd, buf)
  }
  while ((yield* look(fd, buf)) !== EAGAIN);
  yield* close(fd)
  fetch_add(ENDED, 1)
  return 0
})

/** What sk_filter would be if it only looked whether there is a filter. */
function broken_filter(sk: number): void {
  const fp = load(sk + SOCK.offset('sk_filter'))
  if (fp === 0) return
  const skb = alloc_skb(64)!
  skb_put(skb, SIZE / 2)
  sk_run_filter(skb, fp + 8, 4)
  kfree_skb(skb, 0)
}
const sender_sym = symbol('test_filter_sender', function* (arg: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const buf = malloc(128)
  const to = sockaddr_in(malloc(16), 0x7f000001, PORT)
  for (let n = 0; load(r.addr) === 0 && n < 1000; n++) yield* sched_yield()
  for (let k = 0; k < arg >> 1; k++) {
    if ((arg & 1) !== 0) broken_filter(load(r.addr))
    else if ((yield* sendto(fd, buf, SIZE, 0, to, 16)) !== SIZE) r.wrong = 3
  }
  yield* close(fd)
  fetch_add(ENDED, 1)
  return 0
})

export function setup(args: FilterArgs): FilterArgs {
  power_on(2, { rx_arch: 2, nports: 1, nqueues: 1, loopback: 1, user_procs: 4 })
  configure_network({ ports: eth_ports(1, 1), routes: [], neighbours: [] })
  run_program('owner', owner_sym, args.rounds, { cpu: 0 })
  run_program('sender', sender_sym, args.datagrams * 2 + (args.twin === true ? 1 : 0), { cpu: 1 })
  return args
}
export const prepare = secondary

function operator(): void {
  while (load(ENDED) < 2) if (load(POWER) !== RUNNING) return
  power_down(HALTING)
}
const clock = (args: FilterArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, operator, clock }
export const describe = describeAddress
export const outcome = (): string => (r.cut > 0 ? 'a filter cut' : 'none cut')

export function invariant(): void {
  if (r.wrong !== 0) throw new Error(`somebody was told ${r.wrong}`)
  nothing_leaked()
}
