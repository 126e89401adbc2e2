/** offload.ts - the checksum unit of the NIC. */
import { csum_fold, csum_partial } from '../lib/checksum.js'

/**
 * offload_csum - fill in the checksum that the driver left to us. `info`: where summing begins in its upper half, where the
 * sum goes in its lower one, both from the start of the frame. @returns false: they lie outside
 */
export function offload_csum(view: DataView, at: number, len: number, info: number): boolean {
  const start = info >>> 16
  const offset = info & 0xffff
  if (start >= len || offset + 2 > len) return false
  const sum = csum_fold(csum_partial(view, at + start, len - start, 0))
  view.setUint16(at + offset, sum === 0 ? 0xffff : sum)
  return true
}
