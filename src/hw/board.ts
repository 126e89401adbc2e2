/** board.ts - what sits around the CPUs: all NICs of a machine, and the clock chip that ticks HZ times a second. */
import { load, wait_on_address } from '../arch/atomic.js'
import { boot } from '../arch/boot.js'
import { BOOTING, ONLINE, POWER, RUNNING, send_vector, VEC_TIMER } from '../arch/machine.js'
import { nic_page } from '../arch/nic_regs.js'
import { PERCPU_BASE, PERCPU_SHIFT, RAM } from '../arch/ram.js'
import { ACTOR_BOARD, actor_alarm, actor_host, actor_off, ns_per_cycle } from '../arch/turnstile.js'
import { Ahead } from './ahead.js'
import { CNT_STEPS, CONTROL } from './control.js'
import { Nic } from './nic.js'
import { Sightings } from './replay.js'
import type { BoardConfig, CapturedFrames } from './types.js'
import type { Wire } from './wire.js'

const STEPS = (nic_page(0) + CONTROL + CNT_STEPS) >> 3
/** Steps without work before the board gives its host core away for a moment. */
const IDLE_STEPS = 200
const NAP_MS = 0.2

export class Board {
  readonly nics: Nic[]
  private readonly period: number
  private next_tick = -1

  /** `histograms`: one for each port, HISTOGRAM_SLOTS words in shared memory; `wires`: of the ports that have one. */
  constructor(
    readonly config: BoardConfig,
    histograms: Int32Array[],
    wires: (Wire | null)[] = [],
  ) {
    const replays = config.ports.some(p => p.source?.kind === 'replay')
    const sightings = replays ? new Sightings() : null
    const ahead = config.window === undefined ? null : new Ahead(config.window)
    this.nics = config.ports.map((port, k) => new Nic(k, port, sightings, histograms[k]!, ahead, wires[k]))
    this.period = 1e9 / config.hz
  }

  private tick(now: number): void {
    if (this.next_tick < 0) this.next_tick = now + this.period
    if (now < this.next_tick) return
    // A tick that could not be sent in time is not sent twice: CPU 0 reads the clock and makes up for it.
    while (this.next_tick <= now) this.next_tick += this.period
    const online = load(ONLINE)
    for (let cpu = 0; cpu < this.config.ncpus; cpu++) {
      if ((online & (1 << cpu)) === 0) continue // not up yet, or stopped
      if ((load(PERCPU_BASE + (cpu << PERCPU_SHIFT)) & (1 << VEC_TIMER)) === 0) send_vector(cpu, VEC_TIMER)
    }
  }

  /** step - everything that is due at `now`, ns. @returns frames moved */
  step(now: number): number {
    let moved = 0
    for (const nic of this.nics) moved += nic.step(now)
    this.tick(now)
    return moved
  }

  /** run - until the power goes. */
  run(): void {
    let idle = 0
    for (let power = load(POWER); power === BOOTING || power === RUNNING; power = load(POWER)) {
      RAM.f64[STEPS]++
      const moved = this.step(boot.now())
      if (moved > 0 || this.nics.some(nic => nic.active)) idle = 0
      else if (++idle > IDLE_STEPS) wait_on_address(POWER, power, NAP_MS)
    }
  }

  /** When the next thing happens that no CPU causes, ns. */
  private next_event(now: number): number {
    let next = this.next_tick < 0 ? now + this.period : this.next_tick
    for (const nic of this.nics) next = Math.min(next, nic.next_event(now))
    return next
  }

  /**
   * The next look, ns. A board that looks only now and then, as a thread of the host does, sees nothing in between, unless the
   * host asks for something: that costs the machine no time.
   */
  private look(now: number): number {
    const every = this.config.step_ns ?? 0
    return every === 0 || this.nics.some(nic => nic.asked) ? now : Math.ceil(now / every) * every
  }

  /** host_virtual - run as an actor of the turnstile, on this thread: a step for each event, at its time or the next look. */
  host_virtual(): void {
    actor_host(ACTOR_BOARD, cycles => {
      const power = load(POWER)
      if (power !== BOOTING && power !== RUNNING) {
        actor_off(ACTOR_BOARD) // the thread that runs it may leave before the CPU that rings its doorbell
        return
      }
      const ns = ns_per_cycle()
      const now = cycles * ns
      if (this.look(now - ns) > now) {
        actor_alarm(ACTOR_BOARD, Math.max(cycles + 1, Math.ceil(this.look(now) / ns)))
        return
      }
      this.step(now)
      actor_alarm(ACTOR_BOARD, Math.max(cycles + 1, Math.ceil(this.look(this.next_event(now)) / ns)))
    })
  }

  captures(): (CapturedFrames | null)[] {
    return this.nics.map(nic => nic.sink.captured())
  }
}
