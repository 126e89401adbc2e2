/** A router under control: CPUs that forward, and a board that brings them frames and takes what they send. */
import { fetch_add, fetch_or, load, WRITE_ONCE } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { cpu_id, cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import {
  type ConfigWord,
  config_addr,
  DOORBELL,
  DOORBELL_ARG,
  DOORBELL_CPU_DOWN,
  DOORBELL_CPU_UP,
  DOORBELL_DONE,
  DOORBELL_OP,
  HALTING,
  ONLINE,
  POWER,
  PowerOff,
  power_down,
  RUNNING,
  send_vector,
  VEC_TIMER,
} from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { Board } from '../../../src/hw/board.js'
import { doorbell_init } from '../../../src/init/doorbell.js'
import {
  carve,
  configure_network,
  describe as describeAddress,
  init_subsystems,
  leak_audit,
} from '../../../src/init/main.js'
import { HISTOGRAM_SLOTS } from '../../../src/lib/histogram.js'
import { packet_fates } from '../../../src/net/core/fate.js'
import { cpu_loop, forget_tasks } from '../../../src/sched/sched.js'
import { udpFrame } from '../../helpers/frames.js'

export interface RouterArgs {
  cpus: number
  frames: number
  /** 0 interrupt, 1 softnet, 2 napi. */
  rx: number
  /** Ticks of the clock for each CPU. */
  ticks?: number
  /** CPU 1 is stopped and started again meanwhile. */
  hotplug?: boolean
}

const ip = (a: number, b: number, c: number, d: number): number => (a << 24) | (b << 16) | (c << 8) | d

export function setup(args: RouterArgs) {
  const words: Partial<Record<ConfigWord, number>> = {
    ncpus: args.cpus,
    hz: 1000,
    rx_arch: args.rx,
    spin_limit: 1,
    seed: 1,
    nports: 2,
    nqueues: args.cpus,
    slab_poison: 1,
  }
  for (const [name, value] of Object.entries(words)) RAM.i32[config_addr(name as ConfigWord) >> 2] = value
  RAM.i32[POWER >> 2] = RUNNING
  cpu_reset()
  init_subsystems(args.cpus)
  configure_network({
    ports: [0, 1].map(k => ({
      name: `eth${k}`,
      mac: { hi: 0x02000000, lo: k + 1 },
      mtu: 1500,
      addresses: [{ local: ip(10, 0, k, 1), prefixlen: 24 }],
      queues: args.cpus,
      promisc: false,
    })),
    routes: [],
    neighbours: [{ dev: 'eth1', address: ip(10, 0, 1, 2), mac: { hi: 0x02000000, lo: 0x0102 } }],
  })
  if (args.hotplug === true) doorbell_init()
  return args
}

export function prepare(args: RouterArgs): void {
  if (cpu_id === 0 || cpu_id >= args.cpus) return
  cpu_reset()
  carve()
  fetch_or(ONLINE, 1 << cpu_id)
  local_irq_enable()
}

/** What a CPU does until the board turns the machine off. */
function cpu(args: RouterArgs): void {
  if (cpu_id >= args.cpus) return
  forget_tasks()
  try {
    cpu_loop()
  } catch (error) {
    if (!(error instanceof PowerOff)) throw error
  }
}

/** Brings the frames, one by one, and turns the machine off when all have come out and the operator has what he wants. */
function board(args: RouterArgs): void {
  const b = new Board(
    { hz: 0, ncpus: args.cpus, ports: [0, 1].map(() => ({ source: null, capture: true })) },
    [0, 1].map(() => new Int32Array(HISTOGRAM_SLOTS)),
  )
  b.step(boot.now())
  for (let k = 0; k < args.frames; k++) {
    const frame = udpFrame({ src: `10.0.0.${2 + k}`, dst: '10.0.1.2', ttl: 64, sport: 1000 + k, dport: 9 })
    while (!b.nics[0]!.arrive(frame)) b.step(boot.now())
  }
  const wanted = args.hotplug === true ? 2 : 0
  while (b.captures()[1]!.lengths.length < args.frames || load(DOORBELL_DONE) < wanted) b.step(boot.now())
  power_down(HALTING)
}

/** The clock chip: it ticks whenever the strategy says so. */
function clock(args: RouterArgs): void {
  for (let k = 0; k < (args.ticks ?? 0); k++)
    for (let cpu = 0; cpu < args.cpus; cpu++) if ((load(ONLINE) & (1 << cpu)) !== 0) send_vector(cpu, VEC_TIMER)
}

/** Who stops a CPU and starts it again, by the doorbell that the tick of CPU 0 looks at. */
function operator(args: RouterArgs): void {
  if (args.hotplug !== true) return
  for (const op of [DOORBELL_CPU_DOWN, DOORBELL_CPU_UP]) {
    WRITE_ONCE(DOORBELL_OP, op)
    WRITE_ONCE(DOORBELL_ARG, 1)
    const request = fetch_add(DOORBELL, 1) + 1
    send_vector(0, VEC_TIMER)
    while (load(DOORBELL_DONE) !== request) if (load(POWER) !== RUNNING) return
  }
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, 'CPU 2': cpu, 'CPU 3': cpu, board, clock, operator }
export const describe = describeAddress
/** How often CPU 1 was stopped or started. */
export const outcome = (): string => `${RAM.i32[DOORBELL_DONE >> 2]} of 2 requests served`

export function invariant(args: RouterArgs): void {
  let received = 0
  for (let k = 0; k < args.cpus; k++) received += packet_fates.cpu(k).received
  if (received !== args.frames) throw new Error(`received ${received} of ${args.frames}`)
  const leaks = leak_audit()
  if (leaks.length > 0) throw new Error(`leaked ${leaks.map(l => `${l.used} of ${l.name}`).join(', ')}`)
}
