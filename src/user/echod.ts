/** echod.ts - a module for machines: the echo service runs on port 7. */
import { run_program } from '../syscall/process.js'
import { udpechod_sym } from './udpecho.js'

export function main(): void {
  run_program('udpechod', udpechod_sym, 7)
}
