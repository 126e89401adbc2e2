/** save.ts - a table as the kernel keeps it, as text of iptables-save -c. */

import {
  E_BCNT,
  E_DMSK,
  E_DST,
  E_INIFACE,
  E_INMASK,
  E_OFFSETS,
  E_OUTIFACE,
  E_OUTMASK,
  E_PCNT,
  E_PROTO,
  E_SMSK,
  E_SRC,
  ENTRY_WORDS,
  EXT_WORDS,
  HOOK_CHAINS,
  IPT_F_FRAG,
  IPT_INV_DSTIP,
  IPT_INV_FRAG,
  IPT_INV_PROTO,
  IPT_INV_SRCIP,
  IPT_INV_VIA_IN,
  IPT_INV_VIA_OUT,
  R_HOOK_ENTRY,
  R_NAME,
  R_UNDERFLOW,
  R_VALID_HOOKS,
  REPLACE_WORDS,
  words_text,
  X_NAME,
  X_SIZE,
} from '../../lib/iptables.js'
import { MATCHES, TARGETS } from './extensions.js'
import { PROTOCOLS, prefix } from './words.js'

const VERDICT_NAMES: Record<number, string> = { [-1]: 'DROP', [-2]: 'ACCEPT', [-4]: 'QUEUE', [-5]: 'RETURN' }

function counter(blob: Int32Array, at: number): number {
  return (blob[at]! >>> 0) + (blob[at + 1]! >>> 0) * 4294967296
}
function iface(blob: Int32Array, name: number, mask: number): string {
  if (blob[mask] === 0) return ''
  const text = words_text(blob.subarray(name, name + 4))
  const covered = new Uint8Array(Int32Array.from(blob.subarray(mask, mask + 4)).buffer).filter(b => b !== 0).length
  return covered > text.length ? text : `${text}+`
}
const ext_name = (blob: Int32Array, x: number): string => words_text(blob.subarray(x + X_NAME, x + X_NAME + 6))
const ext_data = (blob: Int32Array, x: number): number[] => [
  ...blob.subarray(x + EXT_WORDS, x + (blob[x + X_SIZE]! >> 2)),
]

function rule_text(blob: Int32Array, e: number, chain: string, chains: Map<number, string>): string {
  const proto = blob[e + E_PROTO]!
  const inv = proto >>> 24
  const bang = (flag: number): string => ((inv & flag) !== 0 ? '! ' : '')
  const parts = [`-A ${chain}`]
  if (blob[e + E_SMSK] !== 0) parts.push(`${bang(IPT_INV_SRCIP)}-s ${prefix(blob[e + E_SRC]!, blob[e + E_SMSK]!)}`)
  if (blob[e + E_DMSK] !== 0) parts.push(`${bang(IPT_INV_DSTIP)}-d ${prefix(blob[e + E_DST]!, blob[e + E_DMSK]!)}`)
  const indev = iface(blob, e + E_INIFACE, e + E_INMASK)
  const outdev = iface(blob, e + E_OUTIFACE, e + E_OUTMASK)
  if (indev !== '') parts.push(`${bang(IPT_INV_VIA_IN)}-i ${indev}`)
  if (outdev !== '') parts.push(`${bang(IPT_INV_VIA_OUT)}-o ${outdev}`)
  const number = proto & 0xffff
  const name = Object.keys(PROTOCOLS).find(p => PROTOCOLS[p] === number) ?? String(number)
  if (number !== 0) parts.push(`${bang(IPT_INV_PROTO)}-p ${name}`)
  if (((proto >>> 16) & IPT_F_FRAG) !== 0) parts.push(`${bang(IPT_INV_FRAG)}-f`)
  const t = e + ((blob[e + E_OFFSETS]! & 0xffff) >> 2)
  for (let m = e + ENTRY_WORDS; m < t; m += blob[m + X_SIZE]! >> 2)
    parts.push(`-m ${ext_name(blob, m)}${MATCHES[ext_name(blob, m)]!.save(ext_data(blob, m))}`)
  const target = ext_name(blob, t)
  const verdict = blob[t + EXT_WORDS]!
  if (target !== '') parts.push(`-j ${target}${TARGETS[target]!.save(ext_data(blob, t))}`)
  else parts.push(`-j ${verdict < 0 ? VERDICT_NAMES[verdict] : chains.get(verdict)}`)
  return `[${counter(blob, e + E_PCNT)}:${counter(blob, e + E_BCNT)}] ${parts.join(' ')}`
}

/** saveIptables - @param blob what the kernel's ipt_get_entries gives */
export function saveIptables(blob: Int32Array): string {
  const entries: number[] = []
  for (let e = REPLACE_WORDS; e < blob.length; e += blob[e + E_OFFSETS]! >>> 18) entries.push(e)
  const at = (e: number): number => (e - REPLACE_WORDS) * 4
  const target = (e: number): number => e + ((blob[e + E_OFFSETS]! & 0xffff) >> 2)
  const chains = new Map<number, string>()
  const policies = new Set<number>()
  const heads: string[] = []
  for (let hook = 0; hook < 5; hook++) {
    if ((blob[R_VALID_HOOKS]! & (1 << hook)) === 0) continue
    chains.set(blob[R_HOOK_ENTRY + hook]!, HOOK_CHAINS[hook]!)
    const e = REPLACE_WORDS + (blob[R_UNDERFLOW + hook]! >> 2)
    policies.add(at(e))
    heads.push(
      `:${HOOK_CHAINS[hook]} ${VERDICT_NAMES[blob[target(e) + EXT_WORDS]!]} [${counter(blob, e + E_PCNT)}:${counter(blob, e + E_BCNT)}]`,
    )
  }
  entries.forEach((e, k) => {
    if (ext_name(blob, target(e)) !== 'ERROR' || k === entries.length - 1) return
    const name = words_text(blob.subarray(target(e) + EXT_WORDS, target(e) + EXT_WORDS + 8))
    chains.set(at(entries[k + 1]!), name)
    heads.push(`:${name} - [0:0]`)
  })
  const rules: string[] = []
  let chain = ''
  entries.forEach((e, k) => {
    chain = chains.get(at(e)) ?? chain
    const next = entries[k + 1]
    const ends = policies.has(at(e)) || ext_name(blob, target(e)) === 'ERROR' || next === undefined
    // The RETURN at the end of a user's chain is the table's, not the user's.
    const closing = next !== undefined && ext_name(blob, target(next)) === 'ERROR'
    if (!ends && !closing) rules.push(rule_text(blob, e, chain, chains))
  })
  return [`*${words_text(blob.subarray(R_NAME, R_NAME + 8))}`, ...heads, ...rules, 'COMMIT', ''].join('\n')
}
