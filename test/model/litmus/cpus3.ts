/** A litmus test of 3 CPUs. */
import { cpus } from './run.js'

export { describe, outcome, prepare, setup } from './run.js'
export const actors = cpus(3)
