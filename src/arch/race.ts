/**
 * race.ts - data_race(): a look at a word that others may change meanwhile, where it does no harm to see it late, and which is not
 * worth a step under control: there are thousands of them in a row. READ_ONCE is for all others.
 *
 * @unwatched
 */
import { RAM } from './ram.js'

const i32 = RAM.i32

export function data_race(addr: number): number {
  return i32[addr >> 2]!
}
