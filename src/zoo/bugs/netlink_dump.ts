/** #45: a netlink dump has two ends: its last message was read, or its socket was closed. Both free the callback. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', cb: word(1), freed: word() }
}
type Shared = ReturnType<typeof setup>

function dump_end({ fixed, cb, freed }: Shared): void {
  // Fixed: who takes it away is who frees it (the original holds cb_mutex).
  const mine = fixed ? Atomics.exchange(cb, 0, 0) : Atomics.load(cb, 0)
  if (mine === 0) return
  if (Atomics.exchange(freed, 0, 1) === 1) throw new Error('double free of the netlink_callback')
  Atomics.store(cb, 0, 0)
}

export const actors = { recvmsg: dump_end, destruct: dump_end }
