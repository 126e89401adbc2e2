/** A number is promised to a state that is deleted meanwhile: nobody finds a state that is gone by it, nor is it freed under who looks. */
import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { describe as describeAddress } from '../../../src/init/main.js'
import { XFRM_STATE_DEAD } from '../../../src/net/xfrm/types.js'
import {
  xfrm_alloc_spi,
  xfrm_find_acq,
  xfrm_state_all,
  xfrm_state_delete,
  xfrm_state_flush,
  xfrm_state_lookup,
  xfrm_state_put,
} from '../../../src/net/xfrm/xfrm_state.js'
import { nothing_leaked, power_on, secondary } from './machine.js'

const [ESP, SPI] = [50, 0x100]
/** A packet comes by that number. */
function look(): void {
  const x = xfrm_state_lookup(1, SPI, ESP)
  if (x !== null) xfrm_state_put(x)
}
const seen = { as: '' }

export function setup(): void {
  power_on(2, { slab_poison: 1 })
}
export const prepare = secondary

export const actors = {
  'CPU 0'(): void {
    cpu_reset()
    local_irq_enable()
    const x = xfrm_find_acq(ESP, 0, 0, 1, 2, 0)!
    const err = xfrm_alloc_spi(x, SPI, SPI)
    if (err === 0 && x.spi !== SPI) throw new Error(`promised ${x.spi}`)
    xfrm_state_put(x)
    look()
  },
  'CPU 1'(): void {
    cpu_reset()
    local_irq_enable()
    for (const x of xfrm_state_all()) {
      xfrm_state_delete(x)
      xfrm_state_put(x)
    }
    look()
  },
}
export const describe = describeAddress
export const outcome = (): string => seen.as

export function invariant(): void {
  const x = xfrm_state_lookup(1, SPI, ESP)
  seen.as = x === null ? 'gone' : 'promised'
  if (x !== null) {
    if (x.state === XFRM_STATE_DEAD || x.spi !== SPI) throw new Error('a state that is gone is found')
    xfrm_state_put(x)
  }
  xfrm_state_flush(0)
  nothing_leaked()
}
