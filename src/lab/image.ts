/**
 * image.ts - what threads load: one linked image of the kernel (scripts/image.mjs) where it is as new as the modules that it
 * was linked from, else the modules themselves. The same code in the same order, and so the same map of memory; a thread has
 * it four times as fast from one file as from 250.
 */
import { readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const DIST = new URL('../../', import.meta.url)
const IMAGE = new URL('image/', DIST)

interface Manifest {
  /** what a thread can load, as paths below dist */
  entries: string[]
  /** all that the image was linked from */
  modules: string[]
}

function readManifest(): ReadonlySet<string> {
  try {
    const at = new URL('image.json', IMAGE)
    const { entries, modules } = JSON.parse(readFileSync(at, 'utf8')) as Manifest
    const linked = statSync(at).mtimeMs
    return new Set(modules.every(m => statSync(new URL(m, DIST)).mtimeMs <= linked) ? entries : [])
  } catch {
    return new Set() // no image, or a module of it has gone
  }
}

let entries: ReadonlySet<string> | null = null

/** linked - the URL from which a thread loads this module: in the image if it stands there. Both are compiled modules. */
export function linked(url: string | URL): URL {
  entries ??= readManifest()
  const { href } = new URL(url)
  const path = href.startsWith(DIST.href) ? href.slice(DIST.href.length) : ''
  return entries.has(path) ? new URL(path, IMAGE) : new URL(href)
}

/** linkedWorker - file name of a thread's code, `workers/<name>.js`. */
export const linkedWorker = (name: string): string => fileURLToPath(linked(new URL(`workers/${name}.js`, DIST)))
