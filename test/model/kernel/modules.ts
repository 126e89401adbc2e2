/**
 * A process loads two modules and unloads them again while two CPUs forward packets through the hook of the one, which hands each
 * other packet to the user queue, the other. Nobody runs through a hook that is gone, no packet is left in the queue.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { HALTING, POWER, power_down, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { Board } from '../../../src/hw/board.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { EAGAIN } from '../../../src/lib/errno.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { DROP_REASONS, packet_fates } from '../../../src/net/core/fate.js'
import {
  NF_ACCEPT,
  NF_HOOK_OPS,
  NF_IP_FORWARD,
  NF_QUEUE,
  nf_register_hook,
  nf_unregister_hook,
} from '../../../src/net/core/netfilter.js'
import type { sk_buff } from '../../../src/net/core/types.js'
import { define_module, delete_module, init_module } from '../../../src/sched/module.js'
import { kernel_thread, schedule } from '../../../src/sched/sched.js'
import { udpFrame } from '../../helpers/frames.js'
import { clock_chip, cpu, eth_ports, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface ModulesArgs {
  frames: number
  /** How often both are loaded. */
  rounds: number
  /** The CPU of the process. */
  operator: number
  ticks: number
}

class result extends Struct {
  declare loaded: number
  declare rounds: number
  declare err: number
  declare seen: number
  declare late: number
  declare ops: number
  declare alive: number
}
const RESULT: Layout<result> = layout('modules_result', result, {
  loaded: word, // so often were both loaded
  rounds: word,
  err: word,
  seen: word,
  late: word,
  ops: word, // address of the hook's nf_hook_ops
  alive: word, // address of what the hook looks at: freed with the module
})
const r = DEFINE_STATIC('modules_result', RESULT)
const at = (field: 'loaded' | 'rounds' | 'seen' | 'late'): number => r.addr + RESULT.offset(field)
/** A hook that takes its time. */
const LOOKS = 20
/** Looks of the process whether a packet is in the hook, before it unloads it in any case. */
const PATIENCE = 200
/** `loaded` when they are gone for good. */
const DONE = 1000
const ALIVE = 0x600d

const hook_sym = symbol('test_modules_hook', (_hook: number, _skb: sk_buff): number => {
  const verdict = fetch_add(at('seen'), 1) % 2 === 0 ? NF_ACCEPT : NF_QUEUE
  for (let k = 0; k < LOOKS; k++) if (fetch_add(r.alive, 0) !== ALIVE) fetch_add(at('late'), 1)
  return verdict
})
const mod = define_module('test_modules', {
  *init() {
    r.alive = kmalloc(64)
    RAM.i32[r.alive >> 2] = ALIVE
    r.ops = kmalloc(NF_HOOK_OPS.size)
    const ops = NF_HOOK_OPS.ref(r.ops)
    ops.hook = hook_sym
    ops.hooknum = NF_IP_FORWARD
    ops.priority = 0
    ops.owner = mod.addr
    nf_register_hook(ops)
    return 0
  },
  *exit() {
    yield* nf_unregister_hook(NF_HOOK_OPS.ref(r.ops))
    RAM.i32[r.alive >> 2] = 0
    kfree(r.ops)
    kfree(r.alive)
  },
})

const operate_sym = symbol('test_modules_operate', function* (rounds: number): Generator<void, number, void> {
  let err = 0
  for (let k = 0; k < rounds; k++) {
    err ||= yield* init_module('ip_queue')
    err ||= yield* init_module('test_modules')
    const before = load(at('seen'))
    if (err === 0) fetch_add(at('loaded'), 1)
    for (let n = 0; n < PATIENCE && load(at('seen')) === before; n++) yield* schedule()
    // What waits holds the hook's module: then the queue must go first, and all that waits in it.
    const in_use = (yield* delete_module('test_modules')) === -EAGAIN
    err ||= yield* delete_module('ip_queue')
    if (in_use) err ||= yield* delete_module('test_modules')
    fetch_add(at('rounds'), 1)
  }
  r.err = err
  store(at('loaded'), DONE)
  return 0
})

export function setup(args: ModulesArgs): ModulesArgs {
  power_on(2, { rx_arch: 2, nports: 2, nqueues: 2, slab_poison: 1 })
  configure_network({
    ports: eth_ports(2, 2),
    routes: [],
    neighbours: [{ dev: 'eth1', address: ip(10, 0, 1, 2), mac: { hi: 0x02000000, lo: 0x0102 } }],
  })
  kernel_thread('rmmod', operate_sym, args.rounds, { cpu: args.operator })
  return args
}
export const prepare = secondary

/** Frames come whenever the modules have just been loaded, and one more when they are gone for good: that gets through. */
function board(args: ModulesArgs): void {
  const b = new Board(
    { hz: TICKS, ncpus: 2, ports: [0, 1].map(() => ({ source: null, capture: true })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  const offer = (id: number): void => {
    const frame = udpFrame({ src: `10.0.0.${2 + id}`, dst: '10.0.1.2', id, sport: 1000 + id, dport: 9 })
    while (!b.nics[0]!.arrive(frame)) b.step(boot.now())
  }
  const came = (id: number): boolean => {
    const { data, lengths } = b.captures()[1]!
    let at = 0
    return lengths.some(len => {
      at += len
      return data[at - len + 19] === id
    })
  }
  for (let k = 1; k <= args.rounds; k++) {
    while (load(at('loaded')) < k) b.step(boot.now())
    for (let f = 0; f < args.frames; f++) offer(f)
  }
  while (load(at('loaded')) < DONE) {
    b.step(boot.now())
    if (load(POWER) !== RUNNING) return
  }
  offer(LAST)
  while (!came(LAST)) b.step(boot.now())
  power_down(HALTING)
}
const LAST = 99
/** A second: ten times as many as the kernel believes, since each grace period waits for some. */
const TICKS = 1000
const clock = (args: ModulesArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board, clock }
export const describe = describeAddress
export const outcome = (): string => `${RAM.i32[at('seen') >> 2]} seen`

export function invariant(args: ModulesArgs): void {
  if (r.err !== 0 || r.rounds < args.rounds) throw new Error(`a module says ${r.err}, ${r.rounds} rounds`)
  if (r.late !== 0) throw new Error(`${r.late} packets ran through a hook that is gone`)
  nothing_leaked()
  let [received, ended] = [0, 0]
  for (let k = 0; k < 2; k++) {
    const f = packet_fates.cpu(k)
    received += f.received
    ended += f.forwarded + f.delivered
    for (let n = 0; n < DROP_REASONS.length; n++) ended += RAM.i32[(f.drops >> 2) + n]!
  }
  if (received !== args.frames * args.rounds + 1 || received !== ended)
    throw new Error(`${received} received, ${ended} accounted for`)
}
