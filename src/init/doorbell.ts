/**
 * doorbell.ts - what the host asks of a machine that runs. It writes a request into the boot page and counts DOORBELL up; the
 * clock tick of CPU 0 sees that, and a kernel thread serves it where it may sleep.
 */

import { konst, type Layout, layout, ptr, Struct } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { symbol } from '../abi/symbol.js'
import { load, READ_ONCE, store } from '../arch/atomic.js'
import { cpu_id } from '../arch/cpu.js'
import {
  DOORBELL,
  DOORBELL_ARG,
  DOORBELL_CPU_DOWN,
  DOORBELL_CPU_UP,
  DOORBELL_DONE,
  DOORBELL_NIC_ADD,
  DOORBELL_NIC_DEL,
  DOORBELL_OP,
  DOORBELL_RESULT,
} from '../arch/machine.js'
import { device_add, device_del } from '../drivers/base/bus.js'
import { cpu_down, cpu_up } from '../irq/hotplug.js'
import { tick_hooks } from '../irq/timer.js'
import { EINVAL } from '../lib/errno.js'
import { kernel_thread, rest, set_current_state, wake_up_process } from '../sched/sched.js'
import { TASK, TASK_INTERRUPTIBLE, TASK_RUNNING, type task_struct } from '../sched/task.js'

class doorbell extends Struct {
  declare task: task_struct | null
}
const BELL: Layout<doorbell> = layout('doorbell', doorbell, { task: konst(ptr(() => TASK)) })
const bell = DEFINE_STATIC('doorbell', BELL)

function rung(): boolean {
  return READ_ONCE(DOORBELL) !== READ_ONCE(DOORBELL_DONE)
}

function doorbell_tick(): void {
  if (cpu_id === 0 && rung() && bell.task !== null) wake_up_process(bell.task)
}
tick_hooks.push(doorbell_tick)

function* serve(op: number, arg: number): Generator<void, number, void> {
  if (op === DOORBELL_CPU_DOWN) return yield* cpu_down(arg)
  if (op === DOORBELL_CPU_UP) return yield* cpu_up(arg)
  if (op === DOORBELL_NIC_DEL) return yield* device_del(arg)
  if (op === DOORBELL_NIC_ADD) return yield* device_add(arg)
  return -EINVAL
}

/** kdoorbell - @context process, CPU 0 */
function* kdoorbell(): Generator<void, number, void> {
  for (;;) {
    set_current_state(TASK_INTERRUPTIBLE)
    if (!rung()) yield* rest()
    set_current_state(TASK_RUNNING)
    if (!rung()) continue
    const request = load(DOORBELL)
    store(DOORBELL_RESULT, yield* serve(READ_ONCE(DOORBELL_OP), READ_ONCE(DOORBELL_ARG)))
    store(DOORBELL_DONE, request)
  }
}
const kdoorbell_sym = symbol('kdoorbell', kdoorbell)

/** doorbell_init - @context boot, CPU 0 */
export function doorbell_init(): void {
  bell.task = kernel_thread('kdoorbell', kdoorbell_sym, 0, { cpu: 0 })
}
