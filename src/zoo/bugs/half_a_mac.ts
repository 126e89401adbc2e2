/** #63: a cached hardware header is copied while the neighbour moves: half of the old address, half of the new one. */
import { atomic, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { READ_ONCE, WRITE_ONCE } from '../../arch/atomic.js'
import { BUG_ON } from '../../arch/cpu.js'
import {
  read_seqbegin,
  read_seqretry,
  SEQLOCK,
  seqlock_init,
  type seqlock_t,
  write_seqlock,
  write_sequnlock,
} from '../../sync/seqlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class hh_cache extends Struct {
  declare hh_lock: seqlock_t
  declare hi: number
  declare lo: number
}
const HH: Layout<hh_cache> = layout('hh_cache', hh_cache, {
  hh_lock: embed(SEQLOCK),
  hi: atomic(word),
  lo: atomic(word),
})
const hh = DEFINE_STATIC('hh_cache', HH)
const HI = hh.addr + HH.offset('hi')
const LO = hh.addr + HH.offset('lo')

function set_address(a: number): void {
  WRITE_ONCE(HI, a)
  WRITE_ONCE(LO, a)
}

export function setup(twin: Twin) {
  machine_init(2)
  seqlock_init(hh.hh_lock)
  set_address(0x11)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

export const actors = {
  /** neigh_hh_output */
  'CPU 0'() {
    let seq: number
    let hi: number
    let lo: number
    do {
      seq = read_seqbegin(hh.hh_lock)
      hi = READ_ONCE(HI)
      lo = READ_ONCE(LO)
    } while (read_seqretry(hh.hh_lock, seq))
    BUG_ON(hi !== lo, 'a frame is sent to half of an address')
  },
  /** neigh_update_hhs. The bug: it writes without the lock whose count the reader looks at. */
  'CPU 1'({ fixed }: Shared) {
    if (fixed) write_seqlock(hh.hh_lock)
    set_address(0x22)
    if (fixed) write_sequnlock(hh.hh_lock)
  },
}
