/** power.ts - the power state of a machine: a word of the boot page. */
import { BOOT_PAGE } from './ram.js'

export const POWER = BOOT_PAGE

export const OFF = 0
export const BOOTING = 1
export const RUNNING = 2
export const HALTING = 3
export const PANIC = 4

/** Thrown to unwind a CPU out of the kernel when the power goes. */
export class PowerOff extends Error {
  override name = 'PowerOff'
}
