/** bits.ts - bit tricks on 32-bit words. */

/** ffs - position of the lowest set bit, from 1; 0 for none. */
export function ffs(x: number): number {
  return x === 0 ? 0 : 32 - Math.clz32(x & -x)
}
/** fls - position of the highest set bit, from 1; 0 for none. */
export function fls(x: number): number {
  return 32 - Math.clz32(x)
}
/** is_power_of_2 - of a positive number. */
export function is_power_of_2(n: number): boolean {
  return n > 0 && (n & (n - 1)) === 0
}
/** roundup_pow_of_two - for 1 to 2^30. */
export function roundup_pow_of_two(n: number): number {
  return n <= 1 ? 1 : 1 << fls(n - 1)
}
/** align_up - to a power of two. */
export function align_up(n: number, to: number): number {
  return (n + to - 1) & -to
}
