/**
 * Each CPU takes the machine's spinlock `rounds` times. `broken`: a lock of the same words with one thing wrong: the ticket is
 * taken by a load and a store (ticket), or the last one to leave does not look whether somebody has queued up meanwhile (mcs).
 */
import { bytes, embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { fetch_add, load, store, xchg } from '../../../src/arch/atomic.js'
import { boot } from '../../../src/arch/boot.js'
import { cpu_id, cpu_relax, cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { config_addr, POWER, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import {
  LOCK_TICKET,
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_unlock,
  type spinlock_t,
} from '../../../src/sync/spinlock.js'

class guarded extends Struct {
  declare lock: spinlock_t
  declare count: number
  declare nodes: number
}
const GUARDED: Layout<guarded> = layout('guarded', guarded, { lock: embed(SPINLOCK), count: word, nodes: bytes(64) })
const g = DEFINE_STATIC('guarded', GUARDED)

export interface Args {
  cpus: number
  rounds: number
  broken: boolean
  /** Turns that a waiter spins before it sleeps: for ever, to see the lock alone. */
  spins: number
}

export function setup(args: Args): Args {
  RAM.i32[config_addr('ncpus') >> 2] = args.cpus
  RAM.i32[config_addr('spin_limit') >> 2] = args.spins
  RAM.i32[POWER >> 2] = RUNNING
  spin_lock_init(g.lock)
  return args
}

export function prepare(): void {
  cpu_reset()
  local_irq_enable()
}

const [NEXT, SERVING] = [g.lock.addr, g.lock.addr + 4]
const NODE = g.nodes + cpu_id * 16

function busted_lock(): void {
  if (boot.lockKind === LOCK_TICKET) {
    const ticket = load(NEXT)
    store(NEXT, ticket + 1)
    while (load(SERVING) !== ticket) cpu_relax()
    return
  }
  store(NODE, 0)
  store(NODE + 4, 1)
  const prev = xchg(NEXT, NODE)
  if (prev === 0) return
  store(prev, NODE)
  while (load(NODE + 4) !== 0) cpu_relax()
}

function busted_unlock(): void {
  if (boot.lockKind === LOCK_TICKET) {
    fetch_add(SERVING, 1)
    return
  }
  const next = load(NODE)
  if (next === 0) store(NEXT, 0)
  else store(next + 4, 0)
}

function cpu({ cpus, rounds, broken }: Args, me: { index: number }): void {
  if (me.index >= cpus) return
  for (let k = 0; k < rounds; k++) {
    if (broken) busted_lock()
    else spin_lock(g.lock)
    g.count++
    if (broken) busted_unlock()
    else spin_unlock(g.lock)
  }
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, 'CPU 2': cpu }
export const describe = describe_addr

export function invariant({ cpus, rounds }: Args): void {
  if (g.count !== cpus * rounds) throw new Error(`counted ${g.count} of ${cpus * rounds}`)
}
