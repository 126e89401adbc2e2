/** #31: a bound UDP socket changes its address; for a moment a lookup finds it in neither chain. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', any_chain: word(1), address_chain: word(), port_chain: word(1) }
}
type Shared = ReturnType<typeof setup>

const found = (chain: Int32Array): boolean => Atomics.load(chain, 0) !== 0

export const actors = {
  lookup(s: Shared) {
    if (found(s.address_chain) || found(s.any_chain)) return
    // It moves from the one to the other: who comes too early for the one may come too late for the other.
    if (found(s.address_chain)) return
    // Fixed: a miss is no miss before the table by port, which nobody ever leaves, was asked.
    if (s.fixed && found(s.port_chain)) return
    throw new Error('the lookup misses a socket that is bound all the time')
  },
  connect(s: Shared) {
    Atomics.store(s.any_chain, 0, 0)
    Atomics.store(s.address_chain, 0, 1)
  },
}
