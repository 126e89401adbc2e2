/** A packet uses a state that another CPU deletes: its memory stays as long as the packet holds it. The twin lets it go too early. */

import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { describe as describeAddress } from '../../../src/init/main.js'
import {
  xfrm_state_add,
  xfrm_state_alloc,
  xfrm_state_count,
  xfrm_state_delete,
  xfrm_state_lookup,
  xfrm_state_put,
} from '../../../src/net/xfrm/xfrm_state.js'
import { spin_lock_bh, spin_unlock_bh } from '../../../src/sync/bh.js'
import { nothing_leaked, power_on, secondary } from './machine.js'

export interface XfrmRefArgs {
  /** Does who finds the state hold it? */
  hold: boolean
}

export function setup(args: XfrmRefArgs): XfrmRefArgs {
  power_on(2, { slab_poison: 1 })
  const x = xfrm_state_alloc()!
  Object.assign(x, { daddr: 1, spi: 2, proto: 50 })
  xfrm_state_add(x)
  xfrm_state_put(x)
  return args
}
export const prepare = secondary

export const actors = {
  'CPU 0'({ hold }: XfrmRefArgs): string {
    cpu_reset()
    local_irq_enable()
    const x = xfrm_state_lookup(1, 2, 50)
    if (x === null) return 'late'
    if (!hold) xfrm_state_put(x)
    spin_lock_bh(x.lock)
    xfrm_state_count(x, 100)
    spin_unlock_bh(x.lock)
    if (hold) xfrm_state_put(x)
    return 'used'
  },
  'CPU 1'(): void {
    const x = xfrm_state_lookup(1, 2, 50)!
    xfrm_state_delete(x)
    xfrm_state_put(x)
  },
}
export const describe = describeAddress
export const invariant = nothing_leaked
