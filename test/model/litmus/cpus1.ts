/** A litmus test of 1 CPU. */
import { cpus } from './run.js'

export { describe, outcome, prepare, setup } from './run.js'
export const actors = cpus(1)
