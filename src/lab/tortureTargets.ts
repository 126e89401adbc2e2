/** tortureTargets.ts - what can be tortured, and in which kinds. */
import { RCU_FLAVOURS, TORTURE_LOCKS } from '../lib/torture.js'

/** What can be tortured: a sort of lock, all sorts at once, or something else. */
export const TORTURE_TARGETS = [...TORTURE_LOCKS, 'locks', 'rcu', 'skb', 'timer'] as const
export type TortureTarget = (typeof TORTURE_TARGETS)[number]
/** What `all` stands for. */
export const TORTURE_ALL: readonly TortureTarget[] = ['locks', 'rcu', 'skb', 'timer']

export const BUSTED = 'busted'
export const SPINNING = ['tas', 'ticket', 'mcs'] as const
const KINDS: Record<TortureTarget, readonly string[]> = {
  spin: SPINNING,
  'spin-irq': SPINNING,
  'spin-bh': SPINNING,
  rwlock: ['sound'],
  'rwlock-irq': ['sound'],
  seqlock: SPINNING,
  semaphore: SPINNING,
  locks: SPINNING,
  rcu: RCU_FLAVOURS,
  skb: ['sound'],
  timer: ['sound'],
}

/** kindsOf - the sound kinds of a target; each has a busted twin besides. */
export function kindsOf(target: TortureTarget): readonly string[] {
  return KINDS[target]
}
