/** scenario.ts - what a scenario is, and how it is loaded. */
import { pathToFileURL } from 'node:url'
import { linkedScenario } from './linker.js'

/** What an actor learns of itself. */
export interface ActorInfo {
  name: string
  /** From 0, in the order of `actors`. */
  index: number
}

export const LOCKS = ['tas', 'ticket', 'mcs'] as const

/** KernelOptions - the actors are CPUs of one machine, and may use the kernel's modules. */
export interface KernelOptions {
  /** Kind of its spinlocks (default tas). */
  lock?: (typeof LOCKS)[number]
  /** MiB of RAM (default 16). */
  megabytes?: number
}

/**
 * A scenario: a module that exports these, or an object with them by default.
 *
 * `setup` runs once, on one thread. What it returns reaches each actor as `postMessage` would carry it: its
 * SharedArrayBuffers are the shared memory, whose bytes are put back before each run. `actors` run on threads of their own,
 * one after the other as the strategy says. `invariant` is asked at the end of each run: it throws, or returns false, when
 * what it sees is wrong. `args` is what `explore` was given for it.
 */
export interface Scenario<Shared = unknown, Args = unknown> {
  setup?(args: Args): Shared | Promise<Shared>
  /** Runs on each actor's thread once, before the first run. */
  prepare?(shared: Shared, me: ActorInfo): unknown
  /** The words for an address of shared memory that no name of `setup` leads to; of the kernel's RAM, say. */
  describe?(address: number): string | null
  actors: Record<string, Actor<Shared>> | readonly Actor<Shared>[]
  invariant?(shared: Shared): unknown
  /** A short text for how a run ended, such as the values that were read: the exploration counts them. */
  outcome?(shared: Shared): string | number
}

export type Actor<Shared = unknown> = (shared: Shared, me: ActorInfo) => unknown

/** ScenarioError - the scenario cannot be explored; the message says why and what to do. */
export class ScenarioError extends Error {
  override name = 'ScenarioError'
  /** `input`: what was given cannot be used. `run`: it went wrong on its way. */
  constructor(
    message: string,
    readonly kind: 'input' | 'run' = 'input',
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

export interface Loaded {
  setup: (args: unknown) => unknown
  names: string[]
  actors: Actor[]
  prepare: ((shared: unknown, me: ActorInfo) => unknown) | null
  describe: ((address: number) => string | null) | null
  invariant: ((shared: unknown) => unknown) | null
  outcome: ((shared: unknown) => string | number) | null
}

/** loadScenario - import the module and look at what it exports. `texts`: what it consists of, if that is known. */
export async function loadScenario(url: string, texts: ReadonlyMap<string, string> | null): Promise<Loaded> {
  let module: Record<string, unknown>
  try {
    module = texts === null ? ((await import(url)) as Record<string, unknown>) : await linkedScenario(url, texts)
  } catch (error) {
    throw new ScenarioError(`${plain(url)} does not load: ${messageOf(error)}${hint(url, error)}`, 'input', {
      cause: error,
    })
  }
  const scenario = { ...(module['default'] as object | undefined), ...module } as Partial<Scenario>
  const { setup, actors, prepare, describe, invariant, outcome } = scenario
  const wrong = (what: string): never => {
    throw new ScenarioError(`${plain(url)}: ${what}`)
  }
  if (typeof actors !== 'object' || actors === null)
    return wrong("exports no 'actors' (an object of functions, one for each thread)")
  const entries = Object.entries(actors as Record<string, Actor>)
  if (entries.length === 0) wrong("'actors' is empty")
  if (entries.length > 16) wrong(`has ${entries.length} actors, at most 16`)
  for (const [name, f] of entries) if (typeof f !== 'function') wrong(`actor '${name}' is no function`)
  for (const [name, f] of Object.entries({ setup, prepare, describe, invariant, outcome }))
    if (f !== undefined && typeof f !== 'function') wrong(`'${name}' is no function`)
  const names = Array.isArray(actors) ? entries.map(([k, f]) => f.name || `actor ${k}`) : entries.map(([name]) => name)
  return {
    setup: (setup as ((args: unknown) => unknown) | undefined) ?? (() => undefined),
    names,
    actors: entries.map(([, f]) => f),
    prepare: (prepare as Loaded['prepare'] | undefined) ?? null,
    describe: (describe as Loaded['describe'] | undefined) ?? null,
    invariant: (invariant as Loaded['invariant'] | undefined) ?? null,
    outcome: (outcome as Loaded['outcome'] | undefined) ?? null,
  }
}

function hint(url: string, error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (/\.[mc]?ts$/.test(url) && code === 'ERR_UNKNOWN_FILE_EXTENSION')
    return ' (compile it to JavaScript, or run Node 22.18 or newer, which takes the types away itself)'
  return ''
}

function plain(url: string): string {
  return url.startsWith('file:') ? decodeURIComponent(new URL(url).pathname) : url
}

/** messageOf - of whatever was thrown, in one line. */
export function messageOf(error: unknown): string {
  const text =
    error instanceof Error ? `${error.name === 'Error' ? '' : `${error.name}: `}${error.message}` : String(error)
  return text.replace(/\s*\n\s*/g, ' ').trim()
}

/** scenarioUrl - of a file name or URL. */
export function scenarioUrl(where: string | URL): string {
  if (where instanceof URL) return where.href
  return /^(file|data|node):/.test(where) ? where : pathToFileURL(where).href
}

/** detectorOf - what is thrown may say which detector it comes from: a property `detector`. */
export function detectorOf(error: unknown): string {
  const detector = (error as { detector?: unknown } | null)?.detector
  return typeof detector === 'string' ? detector : ''
}

/** otherStepOf - and which earlier step of the run belongs to it: a property `step`; or -1. */
export function otherStepOf(error: unknown): number {
  const step = (error as { step?: unknown } | null)?.step
  return typeof step === 'number' ? step : -1
}
