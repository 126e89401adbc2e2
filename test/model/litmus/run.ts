/** run.ts - a litmus test of table.ts on CPUs of the kernel: its locks, its RCU, its atomic operations. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { fetch_add, load, READ_ONCE, store, WRITE_ONCE } from '../../../src/arch/atomic.js'
import { cpu_id, cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { config_addr, POWER, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import {
  SPINLOCK,
  spin_is_locked,
  spin_lock,
  spin_lock_init,
  spin_unlock,
  type spinlock_t,
} from '../../../src/sync/spinlock.js'
import type { Op, Place } from './table.js'

class cell extends Struct {
  declare value: number
}
const CELL: Layout<cell> = layout('litmus_cell', cell, { value: word })
class locked extends Struct {
  declare lock: spinlock_t
}
const LOCKED: Layout<locked> = layout('litmus_lock', locked, { lock: embed(SPINLOCK) })

const places: Record<Place, cell> = {
  x: DEFINE_STATIC('x', CELL),
  y: DEFINE_STATIC('y', CELL),
  z: DEFINE_STATIC('z', CELL),
}
const pointer = DEFINE_STATIC('p', CELL)
const locks = [DEFINE_STATIC('lock_s', LOCKED), DEFINE_STATIC('lock_t', LOCKED)]
/** A word of each CPU's own: an atomic operation on it is a full barrier and nothing else. */
const barriers = [0, 1, 2, 3].map(k => DEFINE_STATIC(`barrier${k}`, CELL))
const MOST = 4

export function setup(args: Op[][]) {
  RAM.i32[config_addr('ncpus') >> 2] = args.length
  RAM.i32[config_addr('spin_limit') >> 2] = 0
  RAM.i32[POWER >> 2] = RUNNING
  for (const { lock } of locks) spin_lock_init(lock)
  return { actors: args, registers: new Int32Array(new SharedArrayBuffer(args.length * MOST * 4)) }
}
type Shared = ReturnType<typeof setup>

type Rcu = typeof import('../../../src/rcu/rcupdate.js')
const kernel: { rcu: Rcu | null } = { rcu: null }

/** RCU brings half of the kernel with it: only where it is used. */
export async function prepare({ actors: all }: Shared): Promise<void> {
  if (all.flat().some(op => op[0] === 'assign')) kernel.rcu = await import('../../../src/rcu/rcupdate.js')
  cpu_reset()
  local_irq_enable()
}

/** What an operation reads, or null. */
function apply(op: Op, registers: readonly number[]): number | null {
  switch (op[0]) {
    case 'R':
      return READ_ONCE(places[op[1]].addr)
    case 'Racq':
      return load(places[op[1]].addr)
    case 'W':
    case 'Wrel': {
      const value = typeof op[2] === 'number' ? op[2] : registers[op[2].reg]!
      if (op[0] === 'W') WRITE_ONCE(places[op[1]].addr, value)
      else store(places[op[1]].addr, value)
      return null
    }
    case 'assign':
      kernel.rcu!.rcu_assign_pointer(pointer.addr, places[op[1]].addr)
      return null
    case 'mb':
      fetch_add(barriers[cpu_id]!.addr, 1)
      return null
    case 'lock':
      spin_lock(locks[op[1]]!.lock)
      return null
    case 'unlock':
      spin_unlock(locks[op[1]]!.lock)
      return null
    case 'is_locked':
      return spin_is_locked(locks[op[1]]!.lock) ? 1 : 0
    case 'rcu_lock':
      kernel.rcu!.rcu_read_lock()
      return null
    case 'rcu_unlock':
      kernel.rcu!.rcu_read_unlock()
      return null
    default:
      return null
  }
}

function run({ actors: all, registers: out }: Shared, me: { index: number }): void {
  const registers: number[] = []
  for (const op of all[me.index] ?? []) {
    if (op[0] === 'if' && registers[op[1]] === 0) break
    if (op[0] === 'deref') {
      const at = kernel.rcu!.rcu_dereference(pointer.addr)
      registers.push(at === 0 ? 0 : 1)
      if (at !== 0) registers.push(READ_ONCE(at))
      continue
    }
    const read = apply(op, registers)
    if (read !== null) registers.push(read)
  }
  for (const [k, value] of registers.entries()) out[me.index * MOST + k] = value
}

/** So many of them: cpus1.ts to cpus4.ts are the scenarios. */
export function cpus(n: number) {
  return Object.fromEntries(Array.from({ length: n }, (_, k) => [`CPU ${k}`, run]))
}
export const describe = describe_addr

export function outcome({ registers }: Shared): string {
  const words = (['x', 'y', 'z'] as const).map(name => [name, places[name].value])
  const seen = Array.from(registers, (value, k) => [`${Math.floor(k / MOST)}:${k % MOST}`, value])
  return JSON.stringify(Object.fromEntries([...words, ...seen]))
}
