/** sourceMaps.ts - places in compiled code as places in its source, for modules that were linked and not loaded. */
import { readFileSync } from 'node:fs'
import { SourceMap, type SourceMapPayload } from 'node:module'
import { fileURLToPath, pathToFileURL } from 'node:url'

const maps = new Map<string, SourceMap | null>()
const INLINE = /^data:application\/json[^,]*;base64,/

function mapOf(path: string): SourceMap | null {
  let map = maps.get(path)
  if (map !== undefined) return map
  map = null
  try {
    const named = readFileSync(path, 'utf8').match(/\/\/# sourceMappingURL=(\S+)\s*$/)?.[1]
    if (named !== undefined) {
      const json = INLINE.test(named)
        ? Buffer.from(named.replace(INLINE, ''), 'base64').toString()
        : readFileSync(new URL(named, pathToFileURL(path)), 'utf8')
      map = new SourceMap(JSON.parse(json) as SourceMapPayload)
    }
  } catch {
    // without its map, or with one that cannot be read, compiled code stands for itself
  }
  maps.set(path, map)
  return map
}

/** originalPlace - `file:line` in the source for a place in a compiled file; line and column count from 1. */
export function originalPlace(path: string, line: number, column: number): string {
  const map = /\.[cm]?js$/.test(path) ? mapOf(path) : null
  const found: { originalSource?: string; originalLine?: number } = map?.findEntry(line - 1, column - 1) ?? {}
  const { originalSource, originalLine } = found
  if (originalSource === undefined || originalLine === undefined) return `${path}:${line}`
  return `${fileURLToPath(new URL(originalSource, pathToFileURL(path)))}:${originalLine + 1}`
}
