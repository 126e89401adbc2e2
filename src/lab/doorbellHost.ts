/** doorbellHost.ts - the host's side of init/doorbell.ts: asks a machine that runs for something, and waits until it is done. */
import { RunError } from './errors.js'
import type { Machine } from './machine.js'

/** ringDoorbell - what the machine cannot do is a RunError that begins with the complaint. */
export async function ringDoorbell(machine: Machine, op: number, arg: number, complaint: string): Promise<void> {
  if (!machine.running) throw new RunError('the machine is not running')
  const request = machine.ram.ringDoorbell(op, arg)
  while (!machine.ram.doorbellServed(request)) {
    machine.check()
    await machine.pass(1)
  }
  const error = machine.ram.doorbellResult()
  if (error !== 0) throw new RunError(`${complaint}: error ${-error}`)
}
