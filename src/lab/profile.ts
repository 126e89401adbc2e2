/** profile.ts - cost profiles: what each function of the kernel costs in virtual time. docs/cost-profiles.md is their manual. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { errnoText, UsageError } from './errors.js'
import { PROFILES, profileNames } from './profileNames.js'

/** A cost profile, as it stands in its file. */
export interface CostProfile {
  name: string
  /** Which machine this is, and where its figures come from. */
  title: string
  source: string
  /** Cycles per second. */
  hz: number
  /** Cycles of each function, by its name in the kernel. */
  costs: Record<string, number>
  /** ns from one look of the board (NICs and clock chip) at its wires and registers to the next; nothing: it sees all at once. */
  board_ns?: number
}

/** The machine charges these as they happen, or nobody has measured them yet (sockets): a profile may leave them out. */
const OPTIONAL = [
  'spin_wait',
  'burn',
  'udp_rcv',
  'udp_sendmsg',
  'udp_recvmsg',
  'ip_defrag',
  'arp_rcv',
  'ipt_do_table',
  'ip_packet_match',
  'packet_rcv',
  'xfrm4_output',
  'xfrm4_rcv',
]

const SCHEMA = z.strictObject({
  name: z.string().min(1),
  title: z.string(),
  source: z.string(),
  hz: z.number().min(1e6).max(1e11),
  costs: z.record(z.string(), z.number().nonnegative().max(1e9)),
  board_ns: z.number().nonnegative().max(1e6).exactOptional(),
})

/** readProfile - a profile by its name, or from a file. Throws a UsageError that says what is wrong with it. */
export function readProfile(name: string): CostProfile {
  const file = profileNames().includes(name) ? join(PROFILES, `${name}.json`) : name
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const known = profileNames().join(', ')
    throw new UsageError(`--profile ${name}: ${errnoText(error)} (a file, or one of ${known})`, { cause: error })
  }
  return parseProfile(text, file)
}

/** parseProfile - `file` is for messages. */
export function parseProfile(text: string, file: string): CostProfile {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw new UsageError(`${file}: is no JSON: ${error instanceof Error ? error.message : String(error)}`)
  }
  const parsed = SCHEMA.safeParse(json)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new UsageError(`${file}: ${issue.path.join('.') || 'profile'}: ${issue.message}`)
}

/** costTable - cycles in the order of the kernel's numbers. Every function must have its cost, and no others may. */
export function costTable(profile: CostProfile, names: readonly string[]): number[] {
  for (const name of Object.keys(profile.costs)) {
    if (!names.includes(name)) throw new UsageError(`profile ${profile.name}: the kernel has no function '${name}'`)
  }
  return names.map(name => {
    const cycles = profile.costs[name] ?? (OPTIONAL.includes(name) ? 0 : undefined)
    if (cycles === undefined) throw new UsageError(`profile ${profile.name}: no cost for '${name}'`)
    return cycles
  })
}
