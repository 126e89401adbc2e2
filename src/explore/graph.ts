/**
 * graph.ts - the modules that a scenario imports, instrumented once for all its threads and for later explorations. Hooks of a
 * loader would do it in each thread anew, and before Node 22.15 with a second thread beside each: ten times the time.
 */
import { readFileSync, statSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { resolve } from 'import-meta-resolve'
import { type Instrumented, instrumentModule, isOurs } from './instrument.js'

interface Kept {
  /** of the file when it was read */
  stamp: string
  module: Instrumented | null
}
const kept = new Map<string, Kept>()

/** Is what stands in such a file an ES module? The nearest package.json says it of `.js`. */
function isModule(file: string, asked: Map<string, boolean>): boolean {
  if (file.endsWith('.mjs')) return true
  if (!file.endsWith('.js')) return false
  const of = (dir: string): boolean => {
    let answer = asked.get(dir)
    if (answer === undefined) {
      try {
        answer = (JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')) as { type?: string }).type === 'module'
      } catch {
        answer = dirname(dir) === dir ? false : of(dirname(dir))
      }
      asked.set(dir, answer)
    }
    return answer
  }
  return of(dirname(file))
}

function look(url: string, asked: Map<string, boolean>): Instrumented | null {
  try {
    const file = fileURLToPath(url)
    if (!isModule(file, asked)) return null
    const { size, mtimeMs } = statSync(file)
    const stamp = `${size} ${mtimeMs}`
    const old = kept.get(url)
    if (old?.stamp === stamp) return old.module
    const module = instrumentModule(readFileSync(file, 'utf8'))
    kept.set(url, { stamp, module })
    return module
  } catch {
    return null // the thread's own loader will say what is wrong
  }
}

/** What a module must name to share memory with another thread, or to hide what it imports. */
const SHARES = /\b(Atomics|SharedArrayBuffer|WebAssembly|Worker|worker_threads|require)\b|\bimport\s*\(/
const alone = new Map<string, { stamp: string; imports: readonly string[] | null }>()

/** The modules that a module of a package imports; null: it may share memory. */
function aloneIn(file: string): readonly string[] | null {
  const { size, mtimeMs } = statSync(file)
  const stamp = `${size} ${mtimeMs}`
  const old = alone.get(file)
  if (old?.stamp === stamp) return old.imports
  const code = readFileSync(file, 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '')
  const names = [...code.matchAll(/^(?:import|export)\s(?:[^'"();]*?\bfrom\s)?['"]([^'"]+)['"]/gm)].map(m => m[1]!)
  const imports = SHARES.test(code) ? null : names
  alone.set(file, { stamp, imports })
  return imports
}

/**
 * A package of ES modules none of which names anything that threads share is loaded as it is: what it does, no other thread can
 * observe. False also when that cannot be told.
 */
function sharesNothing(name: string, from: string): boolean {
  try {
    const asked = new Map<string, boolean>()
    const seen = new Set<string>()
    const open = [fileURLToPath(resolve(name, from))]
    for (let file = open.pop(); file !== undefined; file = open.pop()) {
      if (seen.has(file)) continue
      seen.add(file)
      if (!isModule(file, asked)) return false
      const imports = aloneIn(file)
      if (imports === null) return false
      for (const next of imports) {
        if (next.startsWith('.')) open.push(fileURLToPath(new URL(next, pathToFileURL(file))))
        else if (isBuiltin(next)) return false
        else open.push(fileURLToPath(resolve(next, pathToFileURL(file).href)))
      }
    }
    return true
  } catch {
    return false
  }
}

/**
 * instrumentedGraph - texts by URL: the scenario and all that it imports, but for modules of the host and of the explorer
 * itself and for packages that share no memory. null when it cannot be told what it imports, or when there is more to it than ES modules in files: then the hooks of
 * a loader do the work in each thread.
 */
export function instrumentedGraph(scenario: string): ReadonlyMap<string, string> | null {
  const texts = new Map<string, string>()
  const asked = new Map<string, boolean>()
  const open = [scenario]
  for (let url = open.pop(); url !== undefined; url = open.pop()) {
    if (texts.has(url) || isOurs(url)) continue
    const module = look(url, asked)
    if (module === null) return null
    texts.set(url, module.text)
    for (const name of module.imports) {
      if (name.startsWith('.')) open.push(new URL(name, url).href)
      else if (!isBuiltin(name) && !sharesNothing(name, url)) return null
    }
  }
  return texts.size === 0 ? null : texts
}
