/**
 * turnstileHost.ts - the host as an actor of the turnstile: it gives the turn to the machine until a virtual time, and gets
 * it back then, while everything stands still. src/arch/turnstile.ts says how the others see it.
 */
import type { SystemMap } from '../init/system_map.js'

const BOARD = 32
const HOST = 33
const [OFF, READY, BLOCKED] = [0, 1, 2]
// offsets in an actor's record
const [CLOCK, ALARM, STATE, THREAD, DEPTH, GATE] = [0, 8, 16, 20, 28, 32]
/** How often the host looks whether the machine still lives, ms. */
const LOOK_MS = 50

export class TurnstileHost {
  private readonly i32: Int32Array
  private readonly f64: Float64Array
  private readonly at: SystemMap['turnstile']

  constructor(
    buffer: ArrayBufferLike,
    private readonly map: SystemMap,
    private readonly cpus: number,
  ) {
    this.i32 = new Int32Array(buffer)
    this.f64 = new Float64Array(buffer)
    this.at = map.turnstile
  }

  private record(actor: number): number {
    return this.at.table + (actor << this.at.shift)
  }
  private state(actor: number, state: number): void {
    this.i32[(this.record(actor) + STATE) >> 2] = state
  }

  /** Before power-on: clocks at 0, costs in cycles. `spin`: tries before a thread that waits for its turn sleeps. */
  init(
    hz: number,
    costs: readonly number[],
    seed: number,
    spin: number,
    slack: number,
    lag: number,
    stir: number,
  ): void {
    const { at } = this
    this.i32[at.cpus >> 2] = this.cpus
    this.i32[at.seed >> 2] = seed
    this.i32[at.spin >> 2] = spin
    this.f64[at.ns_per_cycle >> 3] = 1e9 / hz
    this.f64[at.slack >> 3] = stir > 0 ? 0 : slack // who is stirred stops wherever others could come in
    this.f64[at.stir >> 3] = stir
    this.f64[at.lag >> 3] = this.cpus === 1 ? 0 : lag // on one thread the turn costs nothing
    costs.forEach((cycles, k) => {
      this.f64[(this.map.costs.table >> 3) + k] = cycles
    })
    for (const actor of this.actors()) {
      this.f64[(this.record(actor) + CLOCK) >> 3] = 0
      this.f64[(this.record(actor) + ALARM) >> 3] = Infinity
      this.i32[(this.record(actor) + THREAD) >> 2] = actor === BOARD ? 0 : actor
    }
    this.begin()
  }

  private actors(): number[] {
    return [...Array(this.cpus).keys(), BOARD, HOST]
  }

  /** All CPUs are ready from the host's time on; nobody has the turn yet. */
  begin(): void {
    const now = this.now
    for (const actor of this.actors()) {
      const clock = (this.record(actor) + CLOCK) >> 3
      this.f64[clock] = Math.max(this.f64[clock]!, now)
      this.i32[(this.record(actor) + GATE) >> 2] = 0
      this.i32[(this.record(actor) + DEPTH) >> 2] = 0
      this.state(actor, READY)
    }
    this.i32[this.at.turn >> 2] = HOST
  }

  /** The host's time: all others have come at least so far. Cycles. */
  get now(): number {
    return this.f64[(this.record(HOST) + CLOCK) >> 3]!
  }
  get nowNs(): number {
    return this.now * this.f64[this.at.ns_per_cycle >> 3]!
  }
  /** Hash of everything that has happened. */
  get hash(): number {
    return this.i32[this.at.hash >> 2]! >>> 0
  }
  /** Times that the turn went from one thread to another. */
  get handovers(): number {
    return this.i32[this.at.handovers >> 2]! >>> 0
  }

  /** When the machine does something next of its own accord, ns; while it stands still. */
  get nextEventNs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const actor of this.actors()) {
      if (actor === HOST) continue
      const record = this.record(actor)
      const state = this.i32[(record + STATE) >> 2]
      if (state === READY) next = Math.min(next, this.f64[(record + CLOCK) >> 3]!)
      else if (state === BLOCKED) next = Math.min(next, this.f64[(record + ALARM) >> 3]!)
    }
    return next * this.f64[this.at.ns_per_cycle >> 3]!
  }

  /** pass - let `ns` of virtual time pass; Infinity: until the machine dies. `check` is called now and then, and throws when the machine has died. */
  async pass(ns: number, check: () => void): Promise<void> {
    const until = this.now + Math.max(1, Math.ceil(ns / this.f64[this.at.ns_per_cycle >> 3]!))
    this.f64[(this.record(HOST) + ALARM) >> 3] = until
    this.state(HOST, BLOCKED)
    this.go()
    const gate = (this.record(HOST) + GATE) >> 2
    while (Atomics.load(this.i32, gate) === 0) {
      const wait = Atomics.waitAsync(this.i32, gate, 0, LOOK_MS)
      if (wait.async) await wait.value
      check()
    }
    Atomics.store(this.i32, gate, 0)
  }

  /** The turn goes to the board, which looks at what the host has asked of it, and then to whoever is first. */
  private go(): void {
    const clock = (this.record(BOARD) + CLOCK) >> 3
    this.f64[clock] = Math.max(this.f64[clock]!, this.now)
    this.state(BOARD, READY)
    this.i32[this.at.turn >> 2] = BOARD
    const gate = (this.record(0) + GATE) >> 2
    Atomics.store(this.i32, gate, 1)
    Atomics.notify(this.i32, gate)
  }

  /** The power is going: every CPU has a turn to see it, and the host wants none. */
  letGo(): void {
    for (let cpu = 0; cpu < this.cpus; cpu++) {
      const record = this.record(cpu)
      if (this.i32[(record + STATE) >> 2] !== BLOCKED) continue
      this.f64[(record + CLOCK) >> 3] = Math.max(this.f64[(record + CLOCK) >> 3]!, this.now)
      this.state(cpu, READY)
    }
    this.state(HOST, OFF)
    this.go()
  }

  /** Every thread that waits for its turn looks at the power. */
  openAll(): void {
    for (const actor of this.actors()) {
      const gate = (this.record(actor) + GATE) >> 2
      Atomics.store(this.i32, gate, 1)
      Atomics.notify(this.i32, gate)
    }
  }
}
