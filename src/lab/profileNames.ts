/** profileNames.ts - the cost profiles that come with the package: apart from profile.ts, so that help needs no validation. */
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Their folder. */
export const PROFILES = fileURLToPath(new URL('../../../data/profiles/', import.meta.url))

/** profileNames - of the profiles that come with the package. */
export function profileNames(): string[] {
  return readdirSync(PROFILES)
    .filter(f => f.endsWith('.json'))
    .map(f => f.slice(0, -5))
    .sort()
}
