/** A policy is replaced while a packet looks whether there is any, which it does without the lock: there always is one. */
import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { describe as describeAddress } from '../../../src/init/main.js'
import { XFRM_POLICY_OUT } from '../../../src/net/xfrm/types.js'
import {
  xfrm_policies,
  xfrm_policy_alloc,
  xfrm_policy_flush,
  xfrm_policy_insert,
} from '../../../src/net/xfrm/xfrm_policy.js'
import { nothing_leaked, power_on, secondary } from './machine.js'

function insert(): void {
  const err = xfrm_policy_insert(XFRM_POLICY_OUT, xfrm_policy_alloc()!, false)
  if (err !== 0) throw new Error(`insert says ${err}`)
}

export function setup(): void {
  power_on(2, {})
  insert()
}
export const prepare = secondary

export const actors = {
  'CPU 0'(): void {
    cpu_reset()
    local_irq_enable()
    for (let k = 0; k < 3; k++) if (!xfrm_policies(XFRM_POLICY_OUT)) throw new Error('a packet goes in clear')
  },
  'CPU 1': insert,
}
export const describe = describeAddress
export function invariant(): void {
  xfrm_policy_flush()
  nothing_leaked()
}
