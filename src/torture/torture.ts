/**
 * torture.ts - what all torture programs share: the control words that the host sets before the machine boots, threads that
 * end when they are told to, and chance.
 *
 * A torture program is no part of the kernel: it is loaded beside it on every CPU, and its main() starts its threads.
 */
import { type Layout, layout, Struct, word } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import type { Sym } from '../abi/symbol.js'
import { fetch_add, READ_ONCE } from '../arch/atomic.js'
import { BUG_ON, burn, cpu_id, cpu_relax } from '../arch/cpu.js'
import { prng_below, prng_seed } from '../lib/prng.js'
import { kernel_thread } from '../sched/sched.js'
import type { Program } from '../sched/task.js'

class torture_control extends Struct {
  declare stop: number
  declare rounds: number
  declare seed: number
  declare busted: number
  declare mask: number
  declare threads: number
  declare done: number
}
const CONTROL: Layout<torture_control> = layout('torture_control', torture_control, {
  stop: word, // set by the host: all threads shall end
  rounds: word, // or each does so many rounds; 0: until it is told to stop
  seed: word,
  busted: word, // what is tortured does not do its work: the oracle must notice
  mask: word, // which locks, or which flavours of RCU
  threads: word, // that were started
  done: word, // that have ended
})
const control = DEFINE_STATIC('torture', CONTROL)
const STOP = control.addr + CONTROL.offset('stop')
const DONE = control.addr + CONTROL.offset('done')

/** torture_must_stop - after so many rounds of a thread. @context any */
export function torture_must_stop(rounds: number): boolean {
  return READ_ONCE(STOP) !== 0 || (control.rounds !== 0 && rounds >= control.rounds)
}
/** torture_stopped - the host has said so. @context any */
export function torture_stopped(): boolean {
  return READ_ONCE(STOP) !== 0
}
/** torture_busted - the broken twin runs. */
export function torture_busted(): boolean {
  return control.busted !== 0
}
/** torture_wants - is number `k` of the locks or flavours among those that are tortured? */
export function torture_wants(k: number): boolean {
  return (control.mask & (1 << k)) !== 0
}

/** torture_create_kthread - a thread that the host waits for. @context process, main() only */
export function torture_create_kthread(name: string, program: Sym<Program>, cpu: number, nice = 0): void {
  control.threads++
  BUG_ON(kernel_thread(name, program, cpu, { cpu, nice }) === null, 'no task for a torture thread')
}
/** torture_kthread_stopping - the last word of such a thread. */
export function torture_kthread_stopping(): void {
  fetch_add(DONE, 1)
}
/** torture_others_done - has every thread ended but so many? */
export function torture_others_done(but: number): boolean {
  return READ_ONCE(DONE) >= control.threads - but
}

/** torture_random - whole numbers below n by the seed of the run, of each thread its own. */
export function torture_random(salt: number): (n: number) => number {
  const state = new Int32Array(4)
  prng_seed(state, control.seed + Math.imul(salt, 0x3779b1) + cpu_id)
  return n => prng_below(state, n)
}

/** torture_delay - mostly short, to be like code that is likely; sometimes long, so that others come and wait. @context any */
export function torture_delay(random: (n: number) => number): void {
  const dice = random(2048)
  if (dice === 0) burn(500_000)
  else if (dice < 32) burn(20_000)
  else for (let k = dice & 7; k >= 0; k--) cpu_relax()
}
