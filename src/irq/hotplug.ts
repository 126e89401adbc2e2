/**
 * hotplug.ts - CPUs that are stopped and started while the machine runs (kernel/cpu.c).
 *
 * Lock charter
 *   cpucontrol, a semaphore: one change at a time. The CPU that goes takes itself off the online mask, between two tasks and
 *   with nothing in hand, so no grace period that begins later misses a reader on it.
 *
 * Tasks do not migrate (a generator lives in its thread): those of a stopped CPU stand still with it. Everything else that
 * it had in hand (timers, tasklets, work, RCU callbacks, packets, interrupt lines) goes to the CPU that stopped it.
 */
import { embed, type Layout, layout, Struct } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { fetch_and, fetch_or, load, store } from '../arch/atomic.js'
import { CPU_DEAD, CPU_STOP, cpu_area, cpu_id, cpu_relax, halting, play_dead, stop_wanted } from '../arch/cpu.js'
import { irq_line, LINE_CPU, line_route } from '../arch/irqchip.js'
import { num_cpus, ONLINE, send_vector, VEC_RESCHED } from '../arch/machine.js'
import { EINVAL } from '../lib/errno.js'
import { NR_IRQS } from '../lib/limits.js'
import { cond_resched, resched_cpu, sched_hooks } from '../sched/sched.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from '../sched/semaphore.js'
import { smp_call_barrier } from './interrupt.js'
import {
  NOTIFIER_HEAD,
  NOTIFY_BAD,
  type notifier_block,
  notifier_call_chain,
  notifier_chain_register,
  type notifier_head,
  notifier_head_init,
} from './notifier.js'

/** Events of the chain; the data is the CPU. */
export const CPU_ONLINE = 2
export const CPU_DOWN_PREPARE = 5
export const CPU_DOWN_FAILED = 6
export const CPU_IS_DEAD = 7

class cpu_control extends Struct {
  declare lock: semaphore
  declare chain: notifier_head
}
const CONTROL: Layout<cpu_control> = layout('cpu_control', cpu_control, {
  lock: embed(SEMAPHORE),
  chain: embed(NOTIFIER_HEAD),
})
const cpucontrol = DEFINE_STATIC('cpucontrol', CONTROL)

/** What floors do for a CPU that stands still, on the CPU that stopped it; filled at module load. */
export const dead_hooks: ((cpu: number) => void)[] = []

/** What floors do before a CPU that stood still goes on, on the CPU that starts it; filled at module load. */
export const prepare_hooks: ((cpu: number) => void)[] = []

/** register_cpu_notifier - @context process, boot */
export function register_cpu_notifier(nb: notifier_block): void {
  notifier_chain_register(cpucontrol.chain, nb)
}

/** cpu_online - @context any */
export function cpu_online(cpu: number): boolean {
  return (load(ONLINE) & (1 << cpu)) !== 0
}

/** The CPU's own part: nobody counts on it any more. @context the bottom of its stack */
function leave(): void {
  fetch_and(ONLINE, ~(1 << cpu_id))
  smp_call_barrier() // a caller that still counted on us has its answer
}

function stand_still(): void {
  leave()
  play_dead()
}
sched_hooks.stand_still = stand_still
sched_hooks.leave = leave

/** cpu_rejoin - a CPU of a halted machine that goes on: all but those that stand still begin together. @context boot */
export function cpu_rejoin(): void {
  if (stop_wanted()) return
  fetch_or(ONLINE, 1 << cpu_id)
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    while (!cpu_online(cpu) && load(cpu_area(cpu) + CPU_STOP) === 0 && !halting()) cpu_relax()
  }
}

/**
 * cpu_down - stop a CPU. CPU 0 keeps the time and cannot be stopped, nor can the caller's own.
 * @context process @returns 0, -EINVAL
 */
export function* cpu_down(cpu: number): Generator<void, number, void> {
  if (!(cpu > 0 && cpu < num_cpus()) || cpu === cpu_id) return -EINVAL
  yield* down(cpucontrol.lock)
  const err = yield* take_down(cpu)
  up(cpucontrol.lock)
  return err
}

function* take_down(cpu: number): Generator<void, number, void> {
  if (!cpu_online(cpu)) return -EINVAL
  if (notifier_call_chain(cpucontrol.chain, CPU_DOWN_PREPARE, cpu) === NOTIFY_BAD) {
    notifier_call_chain(cpucontrol.chain, CPU_DOWN_FAILED, cpu)
    return -EINVAL
  }
  store(cpu_area(cpu) + CPU_STOP, 1)
  while (load(cpu_area(cpu) + CPU_DEAD) === 0) {
    resched_cpu(cpu)
    yield* cond_resched()
  }
  for (let irq = 0; irq < NR_IRQS; irq++) if (load(irq_line(irq) + LINE_CPU) === cpu) line_route(irq, cpu_id)
  for (const hook of dead_hooks) hook(cpu)
  notifier_call_chain(cpucontrol.chain, CPU_IS_DEAD, cpu)
  return 0
}

/** cpu_up - start a CPU that was stopped. @context process @returns 0, -EINVAL */
export function* cpu_up(cpu: number): Generator<void, number, void> {
  if (!(cpu >= 0 && cpu < num_cpus())) return -EINVAL
  yield* down(cpucontrol.lock)
  const err = cpu_online(cpu) ? -EINVAL : 0
  if (err === 0) {
    for (const hook of prepare_hooks) hook(cpu)
    fetch_or(ONLINE, 1 << cpu)
    store(cpu_area(cpu) + CPU_STOP, 0)
    send_vector(cpu, VEC_RESCHED)
    while (load(cpu_area(cpu) + CPU_DEAD) !== 0) yield* cond_resched()
    notifier_call_chain(cpucontrol.chain, CPU_ONLINE, cpu)
  }
  up(cpucontrol.lock)
  return err
}

/** hotplug_init - @context boot, CPU 0 */
export function hotplug_init(): void {
  init_MUTEX(cpucontrol.lock)
  notifier_head_init(cpucontrol.chain)
}
