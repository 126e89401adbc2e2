/** host.ts - what a report says of the host that it was made on. */
import { availableParallelism, cpus } from 'node:os'

export interface BenchHost {
  platform: string
  arch: string
  cpu: string
  cores: number
  node: string
}

export const benchHost = (): BenchHost => ({
  platform: process.platform,
  arch: process.arch,
  cpu: cpus()[0]?.model ?? 'unknown',
  cores: availableParallelism(),
  node: process.version,
})
