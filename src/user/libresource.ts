/** libresource.ts - sys/resource.h and sys/times.h for programs. */
import { __NR_getpriority, __NR_getrusage, __NR_nice, __NR_setpriority, __NR_times, syscall } from '../syscall/table.js'
import { type Libc, load32, malloc } from './libc.js'

export { PRIO_PGRP, PRIO_PROCESS, PRIO_USER, RUSAGE_CHILDREN, RUSAGE_SELF } from '../syscall/resource.js'

/** nice - @returns 0, or a negative errno */
export const nice = (increment: number): Libc => syscall(__NR_nice, increment)
export const setpriority = (which: number, who: number, value: number): Libc =>
  syscall(__NR_setpriority, which, who, value)
/** getpriority - 20 less the nice value, 1 to 40, or a negative errno: as the system call has it, since -1 is a nice value. */
export const getpriority = (which: number, who: number): Libc => syscall(__NR_getpriority, which, who)
/** times - user and system time go to two words at `buf`, in hundredths of a second. @returns those since boot */
export const times = (buf: number): Libc => syscall(__NR_times, buf)

export interface Rusage {
  /** us */
  utime: number
  stime: number
  /** Times that it slept, and that its slice was used up. */
  nvcsw: number
  nivcsw: number
}
/** getrusage - or a negative errno. */
export function* getrusage(who: number): Generator<void, Rusage | number, void> {
  const at = malloc(72)
  const err = yield* syscall(__NR_getrusage, who, at)
  if (err < 0) return err
  const us = (k: number): number => load32(at + 8 * k) * 1e6 + load32(at + 8 * k + 4)
  return { utime: us(0), stime: us(1), nvcsw: load32(at + 64), nivcsw: load32(at + 68) }
}
