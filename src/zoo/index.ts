/**
 * index.ts - the zoo: bugs of kernels and of JavaScript, each with its fixed twin, to be found under control.
 *
 * The list names no kernel code, so that whoever reads it needs no machine. A scenario (bugs/NAME.ts) is told by `args` which
 * twin it is to be. docs/zoo.md tells the same stories; a test holds the two together.
 */
import { LIFETIMES } from './lifetimes.js'
import { ORDER } from './order.js'
import { RACES } from './races.js'
import { WAITS } from './waits.js'

export interface Bug {
  /** Of the chapter of real bugs that the zoo was built from; J: only in JavaScript. */
  number: string
  /** The scenario's file. */
  name: string
  title: string
  /** Where it was seen: CVE and commit of the fix, a test of the kernel, a package. */
  source: string
  /** Detectors that name it rightly. */
  expected: readonly string[]
  /** It runs on the kernel's own modules, each actor a CPU. */
  kernel?: boolean
  /** What happens, and what the fix changes. */
  story: string
}

export interface Chapter {
  title: string
  bugs: readonly Bug[]
}

export const CHAPTERS: readonly Chapter[] = [...WAITS, ...RACES, ...LIFETIMES, ...ORDER]
export const ZOO: readonly Bug[] = CHAPTERS.flatMap(c => c.bugs)

/** RAM that a scenario on the kernel's own modules needs, MiB. */
export const MEGABYTES = 16

/** scenarioOf - where the scenario of a bug lies. */
export function scenarioOf(bug: Bug): URL {
  return new URL(`./bugs/${bug.name}.js`, import.meta.url)
}
