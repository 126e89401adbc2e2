/**
 * replayId.ts - a run as a short text: whose each step was, and a check of what those steps did.
 *
 * `1.` and base64url of: for each stretch of steps by one actor its number and length, and one byte that says what its last
 * step did; then, when there were any, a dot and how many races the run went past. The last one of a livelock says that from there on it goes turn by turn. On edited code the first stretch whose byte differs is where the replay forks.
 */
import { BY_TURNS_FROM_HERE, KINDS } from './words.js'

interface Done {
  kind: string
  where: string
}

export interface Replay {
  plan: number[]
  /** Last step of each stretch, and the check of it. */
  checks: { step: number; check: number }[]
  /** Races that the run went past, since they were known. */
  passed: number
}

const VERSION = '1'

/** checkOf - one byte for what a step did. */
export function checkOf(step: Done): number {
  let h = KINDS.indexOf(step.kind as never)
  for (let k = 0; k < step.where.length; k++) h = (Math.imul(h, 31) + step.where.charCodeAt(k)) | 0
  return (h ^ (h >>> 8) ^ (h >>> 16)) & 255
}

/** replayId - of a run that was recorded. */
export function replayId(executed: readonly number[], steps: readonly Done[], passed = 0): string {
  const bytes: number[] = []
  for (let k = 0; k < executed.length; ) {
    let end = k
    while (end + 1 < executed.length && executed[end + 1] === executed[k]) end++
    bytes.push(executed[k]!)
    let length = end - k + 1
    for (; length > 127; length >>>= 7) bytes.push((length & 127) | 128)
    bytes.push(length, checkOf(steps[end]!))
    k = end + 1
  }
  const text = `${VERSION}.${Buffer.from(bytes).toString('base64url')}`
  return passed === 0 ? text : `${text}.${passed}`
}

/** parseReplayId - or null: it is none. */
export function parseReplayId(id: string): Replay | null {
  const match = /^1\.([A-Za-z0-9_-]*)(?:\.(\d{1,6}))?$/.exec(id.trim())
  if (match === null) return null
  const bytes = Buffer.from(match[1]!, 'base64url')
  const plan: number[] = []
  const checks: Replay['checks'] = []
  for (let k = 0; k < bytes.length; ) {
    const actor = bytes[k++]!
    let length = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[k++]
      if (byte === undefined || shift > 21) return null
      length |= (byte & 127) << shift
      if (byte < 128) break
    }
    const check = bytes[k++]
    if (check === undefined || actor > BY_TURNS_FROM_HERE || length === 0 || plan.length + length > 1 << 20) return null
    for (let j = 0; j < length; j++) plan.push(actor)
    checks.push({ step: plan.length - 1, check })
  }
  return { plan, checks, passed: Number(match[2] ?? 0) }
}
