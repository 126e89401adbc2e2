/**
 * Two CPUs send packets through a tunnel while a process on one of them deletes its state, or replaces its policy. Each packet
 * goes by the old one or by the new one or is dropped for want of one; none goes out in clear, and nothing is left.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { load, store } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { data_race } from '../../../src/arch/race.js'
import { RAM } from '../../../src/arch/ram.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { FATE, packet_fates } from '../../../src/net/core/fate.js'
import { xfrm_init_state } from '../../../src/net/xfrm/xfrm_km.js'
import { xfrm_policy_alloc, xfrm_policy_insert } from '../../../src/net/xfrm/xfrm_policy.js'
import {
  xfrm_state_add,
  xfrm_state_alloc,
  xfrm_state_delete,
  xfrm_state_lookup,
  xfrm_state_put,
} from '../../../src/net/xfrm/xfrm_state.js'
import { xfrm_tmpl_of } from '../../../src/net/xfrm/xfrm_tmpl.js'
import { kernel_thread, schedule } from '../../../src/sched/sched.js'
import { udpFrame } from '../../helpers/frames.js'
import { clock_chip, cpu, eth_ports, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface XfrmArgs {
  frames: number
  what: 'delete' | 'replace'
  /** The CPU of the process. */
  operator: number
  ticks: number
  /** IPComp, not ESP. */
  comp?: boolean
}

const [HERE, THERE] = [ip(10, 0, 1, 1), ip(10, 0, 1, 2)]
const [OLD, NEW] = [0x100, 0x200]

class progress extends Struct {
  declare done: number
}
const PROGRESS: Layout<progress> = layout('xfrm_progress', progress, { done: word })
const DONE = DEFINE_STATIC('xfrm_progress', PROGRESS).addr

const protocol = (args: XfrmArgs): number => (args.comp === true ? 108 : 50)
function add_state(spi: number, proto: number): void {
  const x = xfrm_state_alloc()!
  Object.assign(x, { daddr: THERE, saddr: HERE, spi, proto, mode: 1, reqid: spi })
  Object.assign(x, proto === 50 ? { aalg: 3, aalg_bits: 160, ealg: 12, ealg_bits: 128 } : { calg: 2 })
  if (xfrm_init_state(x).next().value !== 0 || xfrm_state_add(x) !== 0) throw new Error('no state')
  xfrm_state_put(x)
}
function set_policy(reqid: number, proto: number): number {
  const policy = xfrm_policy_alloc()!
  Object.assign(policy.sel, { daddr: THERE, prefixlen_d: 32 })
  policy.xfrm_nr = 1
  Object.assign(xfrm_tmpl_of(policy, 0), { daddr: THERE, saddr: HERE, proto, mode: 1, reqid, aalgos: -1 })
  return xfrm_policy_insert(1, policy, false)
}

const RECEIVED = FATE.offset('received')
const received = (): number => [0, 1].reduce((sum, k) => sum + data_race(packet_fates.cpu(k).addr + RECEIVED), 0)

/** `job`: the protocol, below 0 if a policy is replaced. */
const operate_sym = symbol('test_change_ipsec', function* (job: number) {
  for (let n = 0; n < 1000 && received() === 0; n++) yield* schedule() // so that packets are under way, mostly
  if (job > 0) {
    const x = xfrm_state_lookup(THERE, OLD, job)!
    xfrm_state_delete(x)
    xfrm_state_put(x)
  } else set_policy(NEW, -job)
  store(DONE, 1)
  return 0
})

export function setup(args: XfrmArgs): XfrmArgs {
  power_on(2, { rx_arch: 2, nports: 2, nqueues: 2 })
  configure_network({
    ports: eth_ports(2, 2),
    routes: [],
    neighbours: [{ dev: 'eth1', address: THERE, mac: { hi: 0x02000000, lo: 0x0102 } }],
  })
  const proto = protocol(args)
  add_state(OLD, proto)
  add_state(NEW, proto)
  set_policy(OLD, proto)
  kernel_thread('ip', operate_sym, args.what === 'delete' ? proto : -proto, { cpu: args.operator })
  return args
}
export const prepare = secondary

const DROPPED = FATE.offset('dropped')
function dropped(): number {
  return [0, 1].reduce((sum, k) => sum + data_race(packet_fates.cpu(k).addr + DROPPED), 0) // late is soon enough
}

function board(args: XfrmArgs): void {
  const b = new Board(
    { hz: 0, ncpus: 2, ports: [0, 1].map(() => ({ source: null, capture: true })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  b.step(boot.now())
  for (let k = 0; k < args.frames; k++) {
    const frame = udpFrame({ src: `10.0.0.${2 + k}`, dst: '10.0.1.2', sport: 1000 + k, dport: 9 }, new Uint8Array(200))
    while (!b.nics[0]!.arrive(frame)) b.step(boot.now())
  }
  const out = (): { data: Uint8Array; lengths: ArrayLike<number> } => b.captures()[1]!
  while (load(POWER) === RUNNING && (load(DONE) === 0 || out().lengths.length + dropped() < args.frames))
    b.step(boot.now())
  const { data, lengths } = out()
  for (let k = 0, at = 0; k < lengths.length; at += lengths[k++]!) {
    const spi = data[at + 36]! * 256 + data[at + 37]!
    if (data[at + 23] !== protocol(args) || (spi !== OLD && spi !== NEW))
      throw new Error(`protocol ${data[at + 23]} in clear`)
  }
  power_down(HALTING)
}
const clock = (args: XfrmArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board, clock }
export const describe = describeAddress
/** How many got through, by what was asked. */
export const outcome = (args: XfrmArgs): string => `${args.what}: ${args.frames - dropped()} of ${args.frames}`

export function invariant(args: XfrmArgs): void {
  if (args.what === 'replace' && dropped() > 0 && RAM.i32[DONE >> 2] !== 1) throw new Error('dropped for nothing')
  nothing_leaked()
}
