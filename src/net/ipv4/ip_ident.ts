/** ip_ident.ts - the identification of packets of our own that may be cut: one counter for the machine. */
import { atomic, konst, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { fetch_add } from '../../arch/atomic.js'

class ip_ident extends Struct {
  declare id: number
  declare reserved: number
}
const IDENT: Layout<ip_ident> = layout('ip_ident', ip_ident, { id: atomic(word), reserved: konst(word) })
const ident = DEFINE_STATIC('ip_ident', IDENT)

/** ip_select_ident - the next one, 0 to 65535. @context any */
export function ip_select_ident(): number {
  return fetch_add(ident.addr, 1) & 0xffff
}
