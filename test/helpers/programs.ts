/** programs.ts - user programs on a machine of one CPU: started as processes, run to their end, what they return kept. */
import { symbol } from '../../src/abi/symbol.js'
import type { task_struct } from '../../src/sched/task.js'
import { type ProcessOptions, run_program } from '../../src/syscall/process.js'
import type { Script } from './script.js'

let names = 0

export interface Running<T> {
  task: task_struct
  done: boolean
  result: T | undefined
  /** What it threw. */
  error: unknown
}

/** start - a program, which may return anything. */
export function start<T>(program: () => Generator<void, T, void>, options: ProcessOptions = {}): Running<T> {
  const r = { done: false, result: undefined } as Running<T>
  const sym = symbol(`test_program_${names++}`, function* (): Generator<void, number, void> {
    try {
      r.result = yield* program()
    } catch (error) {
      r.error = error
      throw error
    }
    r.done = true
    return 0
  })
  const task = run_program('test', sym, 0, options)
  if (task === null) throw new Error('no memory for a program')
  r.task = task
  return r
}

/** finish - let time pass until the program has ended, at most `ms`. */
export function finish<T>(s: Script, r: Running<T>, ms = 1000): T {
  for (let k = 0; k < ms && !r.done && r.error === undefined; k++) s.pass(1)
  if (r.error !== undefined) throw r.error
  if (!r.done) throw new Error('the program hangs')
  s.pass(1) // what it left to do
  return r.result!
}

/** run - start and finish. */
export function run<T>(s: Script, program: () => Generator<void, T, void>, options: ProcessOptions = {}): T {
  return finish(s, start(program, options))
}
