/** host.ts - the clock of the host's processor, as far as it can be told. */
import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'

/** nominalHz - cycles per second, and who says so. Where nobody does a cycle is a nanosecond. */
export function nominalHz(): { hz: number; from: string } {
  const mhz = cpus()[0]?.speed ?? 0
  if (mhz > 0) return { hz: mhz * 1e6, from: 'the operating system' }
  const listed = listedMhz()
  return listed > 0 ? { hz: listed * 1e6, from: '/proc/cpuinfo' } : { hz: 1e9, from: 'nobody: a cycle is a nanosecond' }
}

function listedMhz(): number {
  try {
    const match = /^cpu MHz\s*:\s*([\d.]+)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))
    return Math.round(Number(match?.[1] ?? 0))
  } catch {
    return 0 // no Linux
  }
}
