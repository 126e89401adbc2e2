/** xfrm_replay.ts - packets that were seen before, or are too old to be known (RFC 2401 appendix C). */
import { EINVAL } from '../../lib/errno.js'
import type { xfrm_state } from './types.js'

/** xfrm_replay_check - is this number new? RFC 2401 appendix C. @locks the state's is held @returns 0, -EINVAL */
export function xfrm_replay_check(x: xfrm_state, seq: number): number {
  if (seq >>> 0 === 0) return -EINVAL
  if (seq >>> 0 > x.replay_seq >>> 0) return 0
  const diff = ((x.replay_seq >>> 0) - (seq >>> 0)) >>> 0
  if (diff >= x.replay_window) {
    x.stat_replay_window++
    return -EINVAL
  }
  if ((x.replay_bitmap & (1 << diff)) === 0) return 0
  x.stat_replay++
  return -EINVAL
}
/** xfrm_replay_advance - it is sound, and was seen. @locks the state's is held */
export function xfrm_replay_advance(x: xfrm_state, seq: number): void {
  const diff = (seq >>> 0) - (x.replay_seq >>> 0)
  if (diff <= 0) {
    x.replay_bitmap |= 1 << -diff
    return
  }
  x.replay_bitmap = diff < x.replay_window ? (x.replay_bitmap << diff) | 1 : 1
  x.replay_seq = seq | 0
}
