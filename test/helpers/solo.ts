/**
 * solo.ts - a machine of one CPU on this very thread, driven step by step: the board's step raises interrupts, poll()
 * takes them. For unit tests, packet scripts and profiles; no worker, and time is the caller's.
 */
import { cpu_reset, take_interrupts } from '../../src/arch/cpu.js'
import { type ConfigWord, config_addr, POWER, RUNNING } from '../../src/arch/machine.js'
import { RAM } from '../../src/arch/ram.js'
import { Board } from '../../src/hw/board.js'
import type { CapturedFrames, PortConfig } from '../../src/hw/types.js'
import { configure_network, init_subsystems, leak_audit } from '../../src/init/main.js'
import type { NeighbourSetup, PortSetup, RouteSetup, SysctlSetup } from '../../src/init/setup.js'
import { UNANSWERED } from '../../src/lab/machineConfig.js'
import { HISTOGRAM_SLOTS } from '../../src/lib/histogram.js'

export interface SoloPort extends Partial<PortSetup> {
  source?: PortConfig['source']
}

export interface SoloOptions {
  ports: SoloPort[]
  /** Keep what is sent; default true. */
  capture?: boolean
  routes?: RouteSetup[]
  neighbours?: NeighbourSetup[]
  config?: Partial<Record<ConfigWord, number>>
  /** By default nobody on the wires answers questions, and none are sent. */
  sysctl?: SysctlSetup
}

export function ip(text: string): number {
  const [a, b, c, d] = text.split('.').map(Number)
  return (a! << 24) | (b! << 16) | (c! << 8) | d!
}

const booted = { yes: false }

/** Solo - boots once per thread: a second one needs a file, and so a process, of its own. */
export class Solo {
  readonly board: Board

  constructor(readonly options: SoloOptions) {
    if (booted.yes) throw new Error('one machine per thread')
    booted.yes = true
    const words: Partial<Record<ConfigWord, number>> = {
      ncpus: 1,
      hz: 1000,
      rx_arch: 2,
      spin_limit: 100,
      seed: 1,
      nports: options.ports.length,
      nqueues: 1,
      ...options.config,
    }
    for (const [name, value] of Object.entries(words)) RAM.i32[config_addr(name as ConfigWord) >> 2] = value
    RAM.i32[POWER >> 2] = RUNNING
    cpu_reset()
    init_subsystems(1)
    configure_network({
      ports: options.ports.map((p, k) => ({
        name: p.name ?? `eth${k}`,
        mac: p.mac ?? { hi: 0x02000000, lo: k + 1 },
        mtu: p.mtu ?? 1500,
        addresses: p.addresses ?? [{ local: ip(`10.0.${k}.1`), prefixlen: 24 }],
        queues: p.queues ?? 1,
        promisc: p.promisc ?? false,
      })),
      routes: options.routes ?? [],
      neighbours: options.neighbours ?? [],
      sysctl: options.sysctl ?? UNANSWERED,
    })
    this.board = new Board(
      {
        hz: words.hz!,
        ncpus: 1,
        ports: options.ports.map(p => ({ source: p.source ?? null, capture: options.capture ?? true })),
      },
      options.ports.map(() => new Int32Array(HISTOGRAM_SLOTS)),
    )
  }

  /** One step of the board at `now` (ns), then whatever the CPU has pending. @returns frames moved */
  step(now: number): number {
    const moved = this.board.step(now)
    take_interrupts()
    return moved
  }

  captures(): CapturedFrames[] {
    return this.board.captures().map(c => c!)
  }

  /** What leaked. The machine is gone afterwards. */
  audit(): { name: string; used: number }[] {
    return leak_audit()
  }
}
