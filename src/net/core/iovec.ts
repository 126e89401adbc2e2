/** iovec.ts - scattered memory of a program: into packets and out of them. A kernel copy of the vector is used up as it is filled. */
import { RAM } from '../../arch/ram.js'
import { csum_partial } from '../../lib/checksum.js'
import { EFAULT, EMSGSIZE } from '../../lib/errno.js'
import { copy_from_user, copy_to_user } from '../../sched/mm.js'

const i32 = RAM.i32
const dv = RAM.dv

/** The vector at `iov` (kernel) is the one at `from` (the user's). @returns bytes in all, or -EFAULT, -EMSGSIZE */
export function verify_iovec(iov: number, from: number, count: number): number {
  if (copy_from_user(iov, from, count * 8) !== 0) return -EFAULT
  let total = 0
  for (let k = 0; k < count; k++) {
    const len = i32[(iov >> 2) + k * 2 + 1]
    total += len
    if (len < 0 || total > 0x7fffffff) return -EMSGSIZE // 2.6.11 lets a negative one pass behind a longer one
  }
  return total
}

/** memcpy_fromiovecend - `len` bytes from `offset` of the vector on; it stays as it is. @returns 0, -EFAULT */
export function memcpy_fromiovecend(to: number, iov: number, offset: number, len: number): number {
  let w = iov >> 2
  let skip = offset
  while (skip >= i32[w + 1] && len > 0) {
    skip -= i32[w + 1]
    w += 2
  }
  while (len > 0) {
    const n = Math.min(len, i32[w + 1] - skip)
    if (copy_from_user(to, i32[w] + skip, n) !== 0) return -EFAULT
    skip = 0
    len -= n
    to += n
    w += 2
  }
  return 0
}

/** csum_partial_copy_fromiovecend - the same. @returns partial sum of the bytes, or -EFAULT */
export function csum_partial_copy_fromiovecend(to: number, iov: number, offset: number, len: number): number {
  return memcpy_fromiovecend(to, iov, offset, len) !== 0 ? -EFAULT : csum_partial(dv, to, len, 0)
}

/** memcpy_toiovec - `len` bytes into the vector, which then begins behind them. @returns 0, -EFAULT */
export function memcpy_toiovec(iov: number, from: number, len: number): number {
  for (let w = iov >> 2; len > 0; w += 2) {
    const n = Math.min(len, i32[w + 1])
    if (n === 0) continue
    if (copy_to_user(i32[w], from, n) !== 0) return -EFAULT
    i32[w] += n
    i32[w + 1] -= n
    from += n
    len -= n
  }
  return 0
}
