/**
 * A device goes for good on one CPU while a process on the other one sends over it by a connected socket, which it keeps: the socket's
 * route must let the device go. What is sent meanwhile goes out, or nowhere; nobody touches what is gone, and nothing leaks.
 */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import {
  dev_get_by_name,
  dev_put,
  netdev_tell_unregister,
  rtnl_lock,
  rtnl_unlock,
  unregister_netdevice,
} from '../../../src/net/core/netdevice.js'
import { NETDEV } from '../../../src/net/core/types.js'
import { synchronize_kernel } from '../../../src/rcu/rcupdate.js'
import {
  COMPLETION,
  complete,
  type completion,
  init_completion,
  wait_for_completion,
} from '../../../src/sched/completion.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { run_program } from '../../../src/syscall/process.js'
import { close, connect, type Libc, malloc, nanosleep, send, sockaddr_in, socket } from '../../../src/user/libc.js'
import { clock_for_the_idle, cpu, eth_ports, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface UnregisterArgs {
  datagrams: number
  /** The CPU of who takes the device away; the socket is on the other one. */
  operator: number
}

class result extends Struct {
  declare begun: completion
  declare gone: completion
  declare ended: number
  declare sent: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('unregister_result', result, {
  begun: embed(COMPLETION),
  gone: embed(COMPLETION),
  ended: word,
  sent: word,
  wrong: word,
})
const r = DEFINE_STATIC('unregister_result', RESULT)
const ENDED = r.addr + RESULT.offset('ended')
const WRONG = r.addr + RESULT.offset('wrong')
const REFCNT = NETDEV.offset('refcnt')
/** What a sender is told when the way is gone: ENETDOWN, ENETUNREACH, ENOBUFS, EHOSTUNREACH, EINVAL. */
const EXPECTED = [-100, -101, -105, -113, -22]
/** Rounds in which whoever refers to the device lets it go. */
const PATIENCE = 20

function end(): void {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
}
/** unregister_netdev without its pauses, which are long. */
const operator_sym = symbol('test_unregister', function* (): Generator<void, number, void> {
  const eth1 = dev_get_by_name('eth1')!
  yield* rtnl_lock()
  complete(r.begun)
  const err = yield* unregister_netdevice(eth1)
  rtnl_unlock()
  for (let k = 0; k < PATIENCE && load(eth1.addr + REFCNT) !== 2; k++) {
    yield* synchronize_kernel()
    yield* netdev_tell_unregister(eth1)
  }
  yield* synchronize_kernel()
  if (err !== 0 || load(eth1.addr + REFCNT) !== 2) store(WRONG, err || load(eth1.addr + REFCNT))
  dev_put(eth1)
  complete(r.gone)
  end()
  return 0
})
const sender_sym = symbol('test_unregister_sender', function* (datagrams: number): Libc {
  const fd = yield* socket(2, 2, 0)
  const to = sockaddr_in(malloc(16), ip(10, 0, 1, 2), 9)
  let err = yield* connect(fd, to, 16)
  yield* wait_for_completion(r.begun)
  for (let k = 0; k < datagrams && err >= 0; k++) {
    err = yield* send(fd, to, 16, 0)
    if (err === 16) r.sent++
    yield* nanosleep(1e6) // a CPU that never rests ends no grace period
  }
  if (err < 0 && !EXPECTED.includes(err)) store(WRONG, err)
  yield* wait_for_completion(r.gone)
  yield* close(fd)
  end()
  return 0
})

export function setup(args: UnregisterArgs): UnregisterArgs {
  power_on(2, { rx_arch: 2, nports: 2, nqueues: 2, user_procs: 4, loopback: 1 })
  configure_network({
    ports: eth_ports(2, 2),
    routes: [],
    neighbours: [{ address: ip(10, 0, 1, 2), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
  })
  init_completion(r.begun)
  init_completion(r.gone)
  kernel_thread('ip', operator_sym, 0, { cpu: args.operator })
  run_program('sender', sender_sym, args.datagrams, { cpu: 1 - args.operator })
  return args
}

export const prepare = secondary

/** NICs that take what is sent and let the driver stop them, and the clock. */
function board(): void {
  const b = new Board(
    { hz: 1000, ncpus: 2, ports: [0, 1].map(() => ({ source: null, capture: false })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  clock_for_the_idle(() => b.step(boot.now()))
}
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board }
export const describe = describeAddress
export const outcome = (): string => `${r.sent} sent`

export function invariant(): void {
  if (r.wrong !== 0 || r.ended !== 2) throw new Error(`${r.ended} of 2 ended, somebody was told ${r.wrong}`)
  nothing_leaked()
}
