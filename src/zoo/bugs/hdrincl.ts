/** #26: raw_sendmsg asks twice whether the user brings the header, and gets two answers. */
import { type Twin, word } from '../kit/words.js'

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', hdrincl: word(1), sent: word() }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  sendmsg({ fixed, hdrincl, sent }: Shared) {
    const once = Atomics.load(hdrincl, 0)
    let vector: number | null = null
    if (once === 0) vector = 1
    const again = fixed ? once : Atomics.load(hdrincl, 0)
    if (again === 0 && vector === null) throw new Error('the vector of fragments is used and was never set')
    Atomics.store(sent, 0, 1)
  },
  setsockopt({ hdrincl }: Shared) {
    Atomics.store(hdrincl, 0, 0)
  },
}
