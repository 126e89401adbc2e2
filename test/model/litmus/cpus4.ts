/** A litmus test of 4 CPUs. */
import { cpus } from './run.js'

export { describe, outcome, prepare, setup } from './run.js'
export const actors = cpus(4)
