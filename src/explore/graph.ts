/**
 * graph.ts - the modules that a scenario imports, instrumented once for all its threads and for later explorations. Hooks of a
 * loader would do it in each thread anew, and before Node 22.15 with a second thread beside each: ten times the time.
 */
import { readFileSync, statSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
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

/**
 * instrumentedGraph - texts by URL: the scenario and all that it imports, but for modules of the host and of the explorer
 * itself. null when it cannot be told what it imports, or when there is more to it than ES modules in files: then the hooks of
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
      else if (!isBuiltin(name)) return null
    }
  }
  return texts.size === 0 ? null : texts
}
