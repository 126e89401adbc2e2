/** verb.ts - what the verbs share: parsers of option values, output files, the notices before a run. */
import { accessSync, constants, statSync } from 'node:fs'
import { type Command, Option } from 'commander'
import { IMIX } from '../../hw/imix.js'
import { AtomicFile } from '../atomicWrite.js'
import { hostCores, RANGES } from '../config.js'
import { errnoText, LabError, UsageError } from '../errors.js'
import type { CostProfile } from '../profile.js'
import { profileNames } from '../profileNames.js'
import { fileIdentity } from '../sameFile.js'
import type { PortFile } from '../types.js'

/** The work of a verb once its options stand; resolves to the exit code. */
export type VerbBody = (signal: AbortSignal) => Promise<number>
export type VerbRunner = (body: VerbBody) => Promise<void>
export type RegisterVerb = (program: Command, run: VerbRunner) => void

/** wholeNumber - a parser for a flag that takes a whole number of a range. */
export function wholeNumber(flag: string, range: keyof typeof RANGES): (text: string) => number {
  const [min, max] = RANGES[range]
  return text => {
    const n = /^\d+$/.test(text) ? Number(text) : Number.NaN
    if (!(n >= min && n <= max)) throw new UsageError(`${flag} ${text}: must be a whole number from ${min} to ${max}`)
    return n
  }
}

/** oneOf - a parser for a flag that takes one of some words. */
export function oneOf<T extends string>(flag: string, words: readonly T[]): (text: string) => T {
  return text => {
    const word = words.find(w => w === text)
    if (word === undefined) throw new UsageError(`${flag} ${text}: must be one of ${words.join(', ')}`)
    return word
  }
}

/** someOf - a parser for a flag that takes some of a list of words, or "all"; keeps the order of the list. */
export function someOf<T extends string>(flag: string, words: readonly T[]): (text: string) => T[] {
  return text => {
    if (text === 'all') return [...words]
    const chosen = text.split(',').map(part => words.find(w => w === part.trim()))
    if (chosen.includes(undefined))
      throw new UsageError(`${flag} ${text}: must be all, or some of ${words.join(', ')} with commas between`)
    return words.filter(w => chosen.includes(w))
  }
}

const RATE_UNITS: Record<string, number> = { '': 1, k: 1e3, m: 1e6 }
const MAX_RATES = 64

/** aRate - packets per second such as 50k or 1.5M, or NaN. */
function aRate(text: string): number {
  const [min, max] = RANGES.rate
  const match = /^(\d+(?:\.\d+)?)([kKmM]?)$/.exec(text.trim())
  const rate = match === null ? Number.NaN : Math.round(Number(match[1]) * RATE_UNITS[match[2]!.toLowerCase()]!)
  return rate >= min && rate <= max ? rate : Number.NaN
}

/** rateList - a parser for packet rates such as 50k,100k,1.5M; sorts them and drops repeated ones. */
export function rateList(flag: string): (text: string) => number[] | 'auto' {
  const [min, max] = RANGES.rate
  return text => {
    if (text === 'auto') return 'auto'
    const rates = text.split(',').map(part => {
      const rate = aRate(part)
      if (Number.isNaN(rate))
        throw new UsageError(
          `${flag} ${part.trim()}: must be auto, or packets per second from ${min} to ${max / 1e6}M such as 50k,100k,1M`,
        )
      return rate
    })
    if (rates.length > MAX_RATES) throw new UsageError(`${flag}: ${rates.length} rates given, at most ${MAX_RATES}`)
    return [...new Set(rates)].sort((a, b) => a - b)
  }
}

const MAX_BURST = 65_536

/** burst - a parser for packets and peak rate of a burst, such as 32@1M. */
export function burst(flag: string): (text: string) => { packets: number; peak: number } {
  return text => {
    const match = /^(\d+)@(.+)$/.exec(text)
    const packets = Number(match?.[1] ?? 0)
    const peak = aRate(match?.[2] ?? '')
    if (!(packets >= 1 && packets <= MAX_BURST) || Number.isNaN(peak))
      throw new UsageError(`${flag} ${text}: must be packets@rate such as 32@1M`)
    return { packets, peak }
  }
}

const [MIN_FRAME, MAX_FRAME] = [60, 1514]

/** frameSizes - a parser for frame sizes and weights, such as 60:7,590:4,1514:1. */
export function frameSizes(flag: string): (text: string) => [number, number][] {
  return text => {
    if (text === 'imix') return IMIX
    return text.split(',').map(part => {
      const match = /^(\d+)(?::(\d+))?$/.exec(part.trim())
      const bytes = Number(match?.[1] ?? 0)
      const weight = Number(match?.[2] ?? 1)
      if (!(bytes >= MIN_FRAME && bytes <= MAX_FRAME && weight >= 1 && weight <= 1000))
        throw new UsageError(
          `${flag} ${part.trim()}: must be imix, or sizes from ${MIN_FRAME} to ${MAX_FRAME} with weights such as 60:7,1514:1`,
        )
      return [bytes, weight]
    })
  }
}

/** readableFile - a parser for an input file: it is there, is no folder and may be read. */
export function readableFile(flag: string): (path: string) => string {
  return path => {
    if (path === '') throw new UsageError(`${flag}: the name of the file is empty`)
    try {
      accessSync(path, constants.R_OK)
    } catch (error) {
      throw new UsageError(`${flag} ${path}: ${errnoText(error)}`, { cause: error })
    }
    if (statSync(path).isDirectory()) throw new UsageError(`${flag} ${path}: is a folder`)
    return path
  }
}

/** Linux's IFNAMSIZ is 16 with the final zero. */
const IFACE = /^[^=/\s]{1,15}$/

/** portFiles - a parser for IFACE=FILE that may be given once per interface. */
export function portFiles(
  flag: string,
  check: (path: string) => string,
): (text: string, before: PortFile[]) => PortFile[] {
  return (text, before) => {
    const at = text.indexOf('=')
    const iface = text.slice(0, Math.max(at, 0))
    const file = text.slice(at + 1)
    if (at < 0 || file === '' || !IFACE.test(iface))
      throw new UsageError(`${flag} ${text}: must be IFACE=FILE, such as eth0=a.pcap`)
    if (before.some(p => p.iface === iface)) throw new UsageError(`${flag} ${text}: ${iface} has a file already`)
    check(file)
    return [...before, { iface, file }]
  }
}

/** overcommit - what to say of a machine in real time that has more threads than the host can run at once, or null. */
export function overcommit(cpus: number, cores: number, instead: string): string | null {
  const host = `${cores} host core${cores === 1 ? '' : 's'}`
  if (cpus > cores) return `${cpus} CPUs on ${host} take turns, so rates are not those of ${cpus} real CPUs${instead}`
  if (cpus < cores) return null
  const machine = cpus === 1 ? 'a CPU' : `${cpus} CPUs`
  return `${machine} on ${host}: the NIC's thread shares a core with a CPU, so rates suffer${instead}`
}

/** warnOvercommit - that, in one line. */
export function warnOvercommit(cpus: number, instead: string): void {
  const text = overcommit(cpus, hostCores(), instead)
  if (text !== null) process.stderr.write(`softnet: warning: ${text}\n`)
}

/** What the two options of the clock say. */
export interface ClockOptions {
  clock: 'real' | 'virtual'
  profile: string
}

/** clockOption - `--clock`, of the verbs that know both. */
export function clockOption(): Option {
  return new Option('--clock <kind>', 'real, or virtual: exact and the same on every host, with the costs of a profile')
    .argParser(oneOf('--clock', ['real', 'virtual'] as const))
    .default('real')
}

/** profileOption - `--profile`, which counts in virtual time alone. */
export function profileOption(): Option {
  return new Option('--profile <name>', `costs in virtual time: ${profileNames().join(', ')}, or a file`).default(
    'modern',
  )
}

/** profileOf - costs of virtual time, or null with a real clock. */
export async function profileOf({ clock, profile }: ClockOptions): Promise<CostProfile | null> {
  if (clock !== 'virtual') return null
  const { readProfile } = await import('../profile.js')
  return readProfile(profile)
}

/** profileInput - the file that a profile is read from, when it is the user's. */
export function profileInput(name: string): string | undefined {
  return profileNames().includes(name) ? undefined : name
}

/** OutputFiles - the files that a run writes at its end: opened first, so that a bad path costs no run. */
export class OutputFiles {
  readonly #files = new Map<string, AtomicFile>()
  readonly #reads: Set<string | null>
  /** What names a file, by the file. */
  readonly #names = new Map<string, string>()
  readonly #lost: LabError[] = []

  /** `paths` by the flags that name them; `inputs`: what the run reads, which it must not overwrite. */
  constructor(paths: Record<string, string | undefined>, inputs: readonly (string | undefined)[] = []) {
    this.#reads = new Set(inputs.map(path => (path === undefined ? null : fileIdentity(path))))
    for (const [flag, path] of Object.entries(paths)) if (path !== undefined && path !== '-') this.#claim(flag, path)
    try {
      for (const [flag, path] of Object.entries(paths))
        if (path !== undefined && path !== '-') this.#files.set(flag, new AtomicFile(path))
    } catch (error) {
      this.discard()
      throw error
    }
  }

  #claim(flag: string, path: string): void {
    if (path === '') throw new UsageError(`${flag}: the name of the file is empty`)
    const identity = fileIdentity(path)
    if (identity === null) return
    if (this.#reads.has(identity)) throw new UsageError(`${flag} ${path}: is read and written in one run`)
    const other = this.#names.get(identity)
    if (other !== undefined) throw new UsageError(`${other} and ${flag} name the same file: ${path}`)
    this.#names.set(identity, flag)
  }

  /**
   * A file that nobody knew of before the run: what a program of the machine wrote. One that cannot be written loses nothing else of
   * the run: `complain` tells of it at the end. `whose` is for that.
   */
  late(whose: string, path: string, bytes: Uint8Array): void {
    try {
      this.#claim(whose, path)
      const file = new AtomicFile(path)
      try {
        file.write(bytes)
      } catch (error) {
        file.discard()
        throw error
      }
      this.#files.set(`${whose} ${path}`, file)
    } catch (error) {
      if (!(error instanceof LabError)) throw error
      this.#lost.push(error)
    }
  }

  /** A line on standard error for each late file that could not be written. @returns the exit code, or null when all is well */
  complain(): number | null {
    for (const { message } of this.#lost) process.stderr.write(`softnet: ${message}\n`)
    return this.#lost[0]?.exitCode ?? null
  }

  get(flag: string): AtomicFile | undefined {
    return this.#files.get(flag)
  }

  /** Writes the text that `make` returns, when the flag was given. */
  write(flag: string, make: () => string): void {
    this.#files.get(flag)?.write(make())
  }

  /** All of them under their names, once each is safe on its disk. */
  commit(): void {
    for (const file of this.#files.values()) file.flush()
    for (const file of this.#files.values()) file.commit()
  }

  discard(): void {
    for (const file of this.#files.values()) file.discard()
  }
}
