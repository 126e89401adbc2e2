/** spec.ts - what the options of a match or a target are made of. */
import type { Words } from './words.js'

/** An option's words come from the line into the extension's; `inverted`: there was a `!`. */
export type Option = (w: Words, data: number[], inverted: boolean) => void
export interface ExtensionSpec {
  words: number[]
  options: Record<string, Option>
  /** Options without a value: a `!` behind one is that of the next. */
  bare?: readonly string[]
  /** All of these must be there. */
  needs?: readonly string[]
  /** One of these must be there; of any, where this is missing. */
  oneOf?: readonly string[]
  /** It says something without an option. */
  alone?: true
  /** What iptables-save writes. */
  save: (data: number[]) => string
}

export const bang = (inverted: boolean): string => (inverted ? '! ' : '')
export const span = (r: number, sep = ':'): string =>
  (r & 0xffff) === r >>> 16 ? `${r & 0xffff}` : `${r & 0xffff}${sep}${r >>> 16}`

/** list - words with commas between. */
export function list<T>(w: Words, what: string, of: (word: string) => T | undefined): T[] {
  return w
    .next(what)
    .split(',')
    .map(word => of(word) ?? w.fail(`there is no ${what} '${word}'`))
}
