/** Writers of a pair of fields, and readers that must see both halves of one write. `broken`: one half is written too late. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { config_addr, POWER, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import {
  read_seqbegin,
  read_seqretry,
  SEQLOCK,
  seqlock_init,
  type seqlock_t,
  write_seqlock,
  write_sequnlock,
} from '../../../src/sync/seqlock.js'

class pair extends Struct {
  declare lock: seqlock_t
  declare low: number
  declare high: number
}
const PAIR: Layout<pair> = layout('pair', pair, { lock: embed(SEQLOCK), low: word, high: word })
const p = DEFINE_STATIC('pair', PAIR)

export interface Args {
  /** CPUs: the writers come first. */
  writers: number
  readers: number
  broken: boolean
}

export function setup(args: Args): Args {
  RAM.i32[config_addr('ncpus') >> 2] = args.writers + args.readers
  RAM.i32[config_addr('spin_limit') >> 2] = 100_000
  RAM.i32[POWER >> 2] = RUNNING
  seqlock_init(p.lock)
  return args
}

export function prepare(): void {
  cpu_reset()
  local_irq_enable()
}

function write(broken: boolean): void {
  write_seqlock(p.lock)
  p.low++
  if (!broken) p.high++
  write_sequnlock(p.lock)
  if (broken) p.high++
}

function read(): void {
  let seq: number
  let low = 0
  let high = 0
  do {
    seq = read_seqbegin(p.lock)
    low = p.low
    high = p.high
  } while (read_seqretry(p.lock, seq))
  if (low !== high) throw new Error(`read ${low} and ${high}`)
}

function cpu({ writers, readers, broken }: Args, me: { index: number }): void {
  if (me.index < writers) write(broken)
  else if (me.index < writers + readers) read()
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, 'CPU 2': cpu }
export const describe = describe_addr

export function invariant({ writers }: Args): void {
  if (p.low !== writers || p.high !== writers) throw new Error(`${p.low} and ${p.high} of ${writers} writes`)
}
