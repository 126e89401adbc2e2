/**
 * fib_multipath.ts - routes with several next hops: whose turn it is, by weight.
 *
 * Lock charter
 *   fib_multipath_lock guards the powers: what is left of each next hop's weight in this round, and their sum. A dead next
 *   hop has none, so it dies and revives under this lock as well. fib_info_lock may be held when it is taken, never the
 *   reverse. Nothing is called under it.
 */
import { embed, type Layout, layout, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { jiffies } from '../../irq/timer.js'
import { spin_lock_bh, spin_unlock_bh } from '../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../sync/spinlock.js'
import { type fib_info, type fib_nh, fib_nh_of, type fib_result, RTNH_F_DEAD } from './fib_types.js'

class fib_multipath_box extends Struct {
  declare lock: spinlock_t
}
const LOCK: Layout<fib_multipath_box> = layout('fib_multipath_lock', fib_multipath_box, { lock: embed(SPINLOCK) })
const fib_multipath_lock = DEFINE_STATIC('fib_multipath_lock', LOCK).lock

/** fib_select_multipath - choose among several next hops by weight. @locks fib_multipath_lock */
export function fib_select_multipath(res: fib_result): void {
  const fi = res.fi
  if (fi === null || fi.fib_nhs < 2) return
  spin_lock_bh(fib_multipath_lock)
  if (!take_turn(fi, res)) {
    refill(fi)
    take_turn(fi, res) // none: all have just died, and the packet follows the first one
  }
  spin_unlock_bh(fib_multipath_lock)
}

/** @returns false when nobody has power left */
function take_turn(fi: fib_info, res: fib_result): boolean {
  if (fi.fib_power <= 0) return false
  let w = (jiffies() >>> 0) % fi.fib_power
  for (let k = 0; k < fi.fib_nhs; k++) {
    const nh = fib_nh_of(fi, k)
    if ((nh.nh_flags & RTNH_F_DEAD) !== 0 || nh.nh_power === 0) continue
    w -= nh.nh_power
    if (w >= 0) continue
    nh.nh_power--
    fi.fib_power--
    res.nh_sel = k
    return true
  }
  return false
}

function refill(fi: fib_info): void {
  let power = 0
  for (let k = 0; k < fi.fib_nhs; k++) {
    const nh = fib_nh_of(fi, k)
    if ((nh.nh_flags & RTNH_F_DEAD) !== 0) continue
    nh.nh_power = nh.nh_weight
    power += nh.nh_weight
  }
  fi.fib_power = power
}

/** fib_nh_dies - a next hop is of no use, and its turns are the others'. @locks fib_info_lock is held; fib_multipath_lock */
export function fib_nh_dies(fi: fib_info, nh: fib_nh): void {
  spin_lock_bh(fib_multipath_lock)
  nh.nh_flags |= RTNH_F_DEAD
  fi.fib_power -= nh.nh_power
  nh.nh_power = 0
  spin_unlock_bh(fib_multipath_lock)
}

/** fib_nh_revives - it has its share again from the next round on. @locks fib_info_lock is held; fib_multipath_lock */
export function fib_nh_revives(nh: fib_nh): void {
  spin_lock_bh(fib_multipath_lock)
  nh.nh_power = 0
  nh.nh_flags &= ~RTNH_F_DEAD
  spin_unlock_bh(fib_multipath_lock)
}

/** fib_multipath_init - @context boot, CPU 0 */
export function fib_multipath_init(): void {
  spin_lock_init(fib_multipath_lock)
}
