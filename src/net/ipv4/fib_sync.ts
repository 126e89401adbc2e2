/**
 * fib_sync.ts - what devices and addresses take with them when they go, and bring back: next hops die and revive.
 *
 * Lock charter
 *   fib_info_lock (fib_semantics.ts) is held for writing while next hops of a device or an address are looked for;
 *   fib_multipath_lock is taken under it (fib_multipath.ts).
 */
import { RAM } from '../../arch/ram.js'
import { write_lock_bh, write_unlock_bh } from '../../sync/rwlock.js'
import { netif_running } from '../core/netdevice.js'
import type { net_device } from '../core/types.js'
import { fib_nh_dies, fib_nh_revives } from './fib_multipath.js'
import { fib_devindex_hashfn, fib_laddr_hashfn, fib_infos as tables } from './fib_semantics.js'
import { FIB_INFO, FIB_NH, type fib_info, fib_nh_of, RT_SCOPE_NOWHERE, RTNH_F_DEAD } from './fib_types.js'

const i32 = RAM.i32

/**
 * fib_sync_down_dev - next hops over a device that went down are dead, but for addresses of our own, which answer on other
 * devices too. `force` 1: those as well, since the device has no address left. 2: and routes that have other next hops,
 * since the device goes for good. @locks fib_info_lock @returns routes that died
 */
export function fib_sync_down_dev(dev: net_device, force: number): number {
  const spared = force > 0 ? -1 : RT_SCOPE_NOWHERE
  let died = 0
  write_lock_bh(tables.lock)
  for (let at = i32[(tables.devhash >> 2) + fib_devindex_hashfn(dev.ifindex)]; at !== 0; at = FIB_NH.ref(at).nh_next) {
    const nh = FIB_NH.ref(at)
    if (nh.nh_oif !== dev.ifindex) continue
    const fi = FIB_INFO.ref(nh.nh_parent)
    if ((nh.nh_flags & RTNH_F_DEAD) === 0 && nh.nh_scope !== spared) fib_nh_dies(fi, nh)
    if ((fi.fib_flags & RTNH_F_DEAD) === 0 && (force > 1 || alive(fi) === 0)) {
      fi.fib_flags |= RTNH_F_DEAD
      died++
    }
  }
  write_unlock_bh(tables.lock)
  return died
}

function alive(fi: fib_info): number {
  let n = 0
  for (let k = 0; k < fi.fib_nhs; k++) if ((fib_nh_of(fi, k).nh_flags & RTNH_F_DEAD) === 0) n++
  return n
}

/** fib_sync_down_addr - routes that send from an address which is gone are dead. @locks fib_info_lock @returns how many */
export function fib_sync_down_addr(local: number): number {
  if (tables.size === 0) return 0
  let died = 0
  write_lock_bh(tables.lock)
  const head = tables.lhash + fib_laddr_hashfn(local) * 8
  for (let at = i32[head >> 2]; at !== head; at = i32[at >> 2]) {
    const fi = FIB_INFO.container_of('fib_lhash', at)
    if (fi.fib_prefsrc !== local) continue
    fi.fib_flags |= RTNH_F_DEAD
    died++
  }
  write_unlock_bh(tables.lock)
  return died
}

/** fib_sync_up - and alive again when it comes back. @locks fib_info_lock */
export function fib_sync_up(dev: net_device): void {
  if (!netif_running(dev)) return
  write_lock_bh(tables.lock)
  for (let at = i32[(tables.devhash >> 2) + fib_devindex_hashfn(dev.ifindex)]; at !== 0; at = FIB_NH.ref(at).nh_next) {
    const nh = FIB_NH.ref(at)
    if (nh.nh_oif !== dev.ifindex || (nh.nh_flags & RTNH_F_DEAD) === 0) continue
    fib_nh_revives(nh)
    FIB_INFO.ref(nh.nh_parent).fib_flags &= ~RTNH_F_DEAD
  }
  write_unlock_bh(tables.lock)
}
