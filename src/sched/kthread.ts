/**
 * kthread.ts - kernel threads that are told to end (kernel/kthread.c).
 *
 * Lock charter
 *   kthread_stop_info.lock, a semaphore: one thread is stopped at a time. Held while it ends.
 */
import { embed, type Layout, layout, Struct } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { load, store } from '../arch/atomic.js'
import { COMPLETION, type completion, init_completion, wait_for_completion } from './completion.js'
import { current, release_task, wake_up_process } from './sched.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from './semaphore.js'
import { TASK, type task_struct } from './task.js'

class kthread_stop_info extends Struct {
  declare lock: semaphore
  declare done: completion
}
const INFO: Layout<kthread_stop_info> = layout('kthread_stop_info', kthread_stop_info, {
  lock: embed(SEMAPHORE),
  done: embed(COMPLETION),
})
const info = DEFINE_STATIC('kthread_stop_info', INFO)
const SHOULD_STOP = TASK.offset('should_stop')

/** kthread_should_stop - shall this thread return? It looks after it has set its state and before it sleeps. @context process */
export function kthread_should_stop(): boolean {
  return load(current().addr + SHOULD_STOP) !== 0
}

/**
 * kthread_stop - tell a thread to end and wait until it has, on whatever CPU; one that stands still ends when it is back.
 * The thread must not end by itself before. @context process @consumes p @returns what it returned
 */
export function* kthread_stop(p: task_struct): Generator<void, number, void> {
  yield* down(info.lock)
  init_completion(info.done)
  p.exit_wait = info.done.addr
  store(p.addr + SHOULD_STOP, 1)
  wake_up_process(p)
  yield* wait_for_completion(info.done)
  const code = p.exit_code
  release_task(p)
  up(info.lock)
  return code
}

/** kthread_init - @context boot, CPU 0 */
export function kthread_init(): void {
  init_MUTEX(info.lock)
}
