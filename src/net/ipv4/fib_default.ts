/**
 * fib_default.ts - several default gateways: one whose neighbour does not answer is passed over (fn_hash_select_default and
 * fib_detect_death of 2.6.11). Nobody pings them: what is known is what sending to them has shown (RFC 1122 3.3.1.4).
 */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { NUD_VALID, neigh_lookup, neigh_release } from '../core/neighbour.js'
import { NUD_NONE, NUD_REACHABLE } from '../core/types.js'
import { fn_hash_defaults } from './fib_hash.js'
import { type fib_info, fib_nh_of, type fib_result, RT_SCOPE_LINK, RTN_UNICAST } from './fib_types.js'

class fib_default extends Struct {
  declare last: number
  declare reserved: number
}
const DEFAULT: Layout<fib_default> = layout('fib_default', fib_default, {
  last: atomic(word), // the gateway that was chosen last, by its place + 1; no lock, as in 2.6.11
  reserved: word,
})
const dflt = DEFINE_STATIC('fib_default', DEFAULT)

function is_gateway(fi: fib_info): boolean {
  const nh = fib_nh_of(fi, 0)
  return fi.fib_nhs === 1 && nh.nh_gw !== 0 && nh.nh_scope === RT_SCOPE_LINK
}

function state_of(fi: fib_info): number {
  const nh = fib_nh_of(fi, 0)
  const n = neigh_lookup(nh.nh_gw, nh.nh_dev!)
  if (n === null) return NUD_NONE
  const state = n.nud_state
  neigh_release(n)
  return state
}

/** fib_select_default - among default routes that are equally good, one whose gateway seems to live. @context bottom halves off */
export function fib_select_default(res: fib_result): void {
  if (res.type !== RTN_UNICAST || res.fi === null || !is_gateway(res.fi)) return
  const all: fib_info[] = []
  fn_hash_defaults(res, fi => {
    if (is_gateway(fi)) all.push(fi)
  })
  if (all.length < 2 || all[0] !== res.fi) {
    dflt.last = 0
    return
  }
  const last = dflt.last - 1
  let resort = -1
  for (let order = 0; order < all.length; order++) {
    const state = state_of(all[order]!)
    const valid = (state & NUD_VALID) !== 0
    if (state === NUD_REACHABLE || (valid && order !== last)) {
      res.fi = all[order]!
      dflt.last = order + 1
      return
    }
    if (valid || (resort < 0 && order > last)) resort = order
  }
  if (resort >= 0) res.fi = all[resort]!
  dflt.last = resort + 1
}
