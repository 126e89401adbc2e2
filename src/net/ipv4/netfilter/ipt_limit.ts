/**
 * ipt_limit.ts - so many packets a time, by a token bucket that all CPUs share (ipt_limit.c).
 *
 * Lock charter
 *   limit.lock guards all buckets. Taken under a table's lock for reading, with bottom halves off.
 *
 * Data: avg (in 1/10000 s from packet to packet), burst, then the kernel's own: a bucket, master. The bucket is the one of CPU 0's
 * copy of the rules, whose address is in `master` of all copies.
 */
import { embed, type Layout, layout, Struct } from '../../../abi/layout.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { hz } from '../../../arch/machine.js'
import { RAM } from '../../../arch/ram.js'
import { jiffies } from '../../../irq/timer.js'
import { define_module } from '../../../sched/module.js'
import { spin_lock_bh, spin_unlock_bh } from '../../../sync/bh.js'
import { SPINLOCK, spin_lock_init, type spinlock_t } from '../../../sync/spinlock.js'
import { define_match, ipt_register, ipt_unregister, NO, YES } from './ip_tables.js'

const i32 = RAM.i32
const SCALE = 10000 // IPT_LIMIT_SCALE
const AVG = 0
const BURST = 1
const BUCKET = 2
const MASTER = 6

class limit_t extends Struct {
  declare lock: spinlock_t
}
const LIMIT: Layout<limit_t> = layout('ipt_limit', limit_t, { lock: embed(SPINLOCK) })
const limit = DEFINE_STATIC('ipt_limit', LIMIT)

/** Credits that come in a jiffy: as many as leave a burst of a day's packet in 32 bits. */
const credits_per_jiffy = (): number => 1 << Math.floor(Math.log2(0xffffffff / (hz() * 60 * 60 * 24)))
/** user2credits - a time in 1/10000 s. */
function user2credits(n: number): number {
  return Math.floor((n * hz() * credits_per_jiffy()) / SCALE)
}

// A bucket is four words; who has it looks to its lock.
export const BUCKET_WORDS = 4
const PREV = 0
const CREDIT = 1
const CREDIT_CAP = 2
const COST = 3

/** bucket_fits - does a burst fit into its words? */
export function bucket_fits(avg: number, burst: number): boolean {
  return burst !== 0 && user2credits(avg * burst) <= 0xffffffff
}
/** bucket_init - full. */
export function bucket_init(b: number, avg: number, burst: number): void {
  i32[b + PREV] = jiffies()
  i32[b + CREDIT] = user2credits(avg * burst)
  i32[b + CREDIT_CAP] = user2credits(avg * burst)
  i32[b + COST] = user2credits(avg)
}
/** bucket_take - what time has brought, less a packet. @returns false: there is not enough for one */
export function bucket_take(b: number): boolean {
  const now = jiffies()
  const credit = (i32[b + CREDIT] >>> 0) + ((now - i32[b + PREV]) >>> 0) * credits_per_jiffy()
  i32[b + PREV] = now
  const have = Math.min(credit, i32[b + CREDIT_CAP] >>> 0)
  const fits = have >= i32[b + COST] >>> 0
  i32[b + CREDIT] = fits ? have - (i32[b + COST] >>> 0) : have
  return fits
}

function limit_match(_skb: unknown, _in: unknown, _out: unknown, info: number): number {
  const r = i32[(info >> 2) + MASTER] >> 2
  spin_lock_bh(limit.lock)
  const fits = bucket_take(r + BUCKET)
  spin_unlock_bh(limit.lock)
  return fits ? YES : NO
}

function limit_check(_t: string, _e: number, info: number): boolean {
  const r = info >> 2
  const avg = i32[r + AVG] >>> 0
  const burst = i32[r + BURST] >>> 0
  if (!bucket_fits(avg, burst)) return false // would overflow
  bucket_init(r + BUCKET, avg, burst)
  i32[r + MASTER] = info
  return true
}
define_match('limit', 7, limit_match, limit_check)

const mod = define_module('ipt_limit', {
  *init() {
    spin_lock_init(limit.lock)
    ipt_register('match', 'limit', mod.addr)
    return 0
  },
  *exit() {
    ipt_unregister('match', 'limit')
  },
  uses: ['ip_tables'],
})
