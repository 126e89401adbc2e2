/** symbol.ts - function pointers at rest: an index into a table that every CPU fills in the same order. */
import { layouts } from './layout.js'
import { placed } from './section.js'

/** A function pointer as it lies in RAM; 0 is NULL. */
export type Sym<F> = number & { readonly __sym?: F }

const table: unknown[] = [null]
const names: string[] = ['NULL']

/** symbol - enter a function (or a table of functions) into the text of the machine, once, at module load. */
export function symbol<F>(name: string, value: F): Sym<F> {
  table.push(value)
  names.push(name)
  return (table.length - 1) as Sym<F>
}

/** call - the function behind a pointer. */
export function call<F>(sym: Sym<F>): F {
  return table[sym] as F
}

/** symbol_name - for dumps. */
export function symbol_name(sym: number): string {
  return names[sym] ?? `?${sym}`
}

/** text_hash - fingerprint of symbols, layouts and placed variables: CPUs that differ must not share a machine. */
export function text_hash(): number {
  let h = 0x811c9dc5
  const mix = (text: string): void => {
    for (let k = 0; k < text.length; k++) h = Math.imul(h ^ text.charCodeAt(k), 0x01000193)
  }
  for (const name of names) mix(name)
  for (const l of layouts) mix(`${l.name}:${l.size}:${Object.keys(l.fields).join()}`)
  for (const p of placed) mix(`${p.name}@${p.offset}`)
  return h | 0
}
