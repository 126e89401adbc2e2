/**
 * check.ts - what the kernel would refuse of rules that can be read, by the line that says it: matches and targets where they cannot
 * be, and chains that come back to themselves. The kernel checks again by itself, but it knows no lines.
 */
import { type Chain, HOOK_CHAINS, IPT_INV_PROTO, type Rule, type Table } from '../../lib/iptables.js'
import { own, PROTOCOLS, RuleError } from './words.js'

interface Place {
  table?: string
  /** By number. */
  hooks?: number[]
  /** One of these must be the rule's. */
  protocols?: number[]
  /** The rule lets only SYNs through. */
  syn?: true
}
const MATCH_PLACES: Record<string, Place> = {
  tcp: { protocols: [6] },
  udp: { protocols: [17] },
  icmp: { protocols: [1] },
  multiport: { protocols: [6, 17] },
  owner: { hooks: [3, 4] },
  esp: { protocols: [50] },
  ah: { protocols: [51] },
  tcpmss: { protocols: [6] },
}
const SOURCE: Place = { table: 'nat', hooks: [4] }
const DESTINATION: Place = { table: 'nat', hooks: [0, 3] }
const TARGET_PLACES: Record<string, Place> = {
  REJECT: { table: 'filter' },
  MARK: { table: 'mangle' },
  TOS: { table: 'mangle' },
  TTL: { table: 'mangle' },
  DSCP: { table: 'mangle' },
  ECN: { table: 'mangle' },
  CLASSIFY: { table: 'mangle', hooks: [2, 3, 4] },
  TCPMSS: { protocols: [6], syn: true },
  SNAT: SOURCE,
  MASQUERADE: SOURCE,
  DNAT: DESTINATION,
  REDIRECT: DESTINATION,
  NETMAP: { table: 'nat', hooks: [0, 3, 4] },
}
const TCP_RESET = 7
const CLAMP_PMTU = 0xffff
/** Of ecn and ECN: what is about TCP's flags. */
const ECN_TCP = 0x30
/** What depends on the words. */
const BY_WORDS: Record<string, (first: number) => Place> = {
  ecn: first => ((first & ECN_TCP) === 0 ? {} : { protocols: [6] }),
  ECN: first => ((first & ECN_TCP) === 0 ? {} : { protocols: [6] }),
  REJECT: first => (first === TCP_RESET ? { protocols: [6] } : {}),
  TCPMSS: first => (first === CLAMP_PMTU ? { hooks: [2, 3, 4] } : {}),
}

/** The matches and the target of a rule, by what they are called in a line, and where they can be. */
function places({ matches, target }: Rule): [name: string, place: Place][] {
  const place = (of: Record<string, Place>, name: string, words: number[]): Place => ({
    ...own(of, name),
    ...own(BY_WORDS, name)?.(words[0]!),
  })
  const all = matches.map((m): [string, Place] => [`match ${m.name}`, place(MATCH_PLACES, m.name, m.words)])
  if (!('name' in target)) return all
  return [...all, [`target ${target.name}`, place(TARGET_PLACES, target.name, target.words)]]
}

/** Flags that are to be set from bit 16 on, bit 26: not these. */
const wants_syn = ({ matches }: Rule): boolean =>
  matches.some(({ name, words }) => name === 'tcp' && ((words[2]! >> 17) & 1) === 1 && ((words[2]! >> 26) & 1) === 0)

/** A verdict for all that comes: no packet gets to what stands behind it. */
function final(r: Rule): boolean {
  const { src, smsk, dst, dmsk, iniface, outiface, proto, flags, invflags, matches, target } = r
  const common = (src | smsk | dst | dmsk | proto | flags | invflags) === 0 && iniface + outiface === ''
  return common && matches.length === 0 && 'verdict' in target
}

/** From which hooks packets come to each chain, as bits. */
function reached(table: Table, fail: (r: Rule, what: string) => never): Map<Chain, number> {
  const hooks = new Map<Chain, number>()
  const byName = new Map(table.chains.map(c => [c.name, c]))
  const way = new Set<Chain>()
  const walk = (chain: Chain, hook: number): void => {
    hooks.set(chain, (hooks.get(chain) ?? 0) | (1 << hook))
    way.add(chain)
    for (const r of chain.rules) {
      const next = 'chain' in r.target ? byName.get(r.target.chain) : undefined
      if (next !== undefined && way.has(next)) fail(r, `chain ${next.name} comes back to itself`)
      if (next !== undefined && ((hooks.get(next) ?? 0) & (1 << hook)) === 0) walk(next, hook)
      if (final(r)) break
    }
    way.delete(chain)
  }
  for (const chain of table.chains) if (chain.hook >= 0) walk(chain, chain.hook)
  return hooks
}

/** What is wrong with a match or a target where it is, or null. */
function misplaced(place: Place, rule: Rule, table: string, hooks: number): string | null {
  if (place.table !== undefined && place.table !== table) return `belongs into table ${place.table}`
  const wrong = HOOK_CHAINS.filter((_, hook) => (hooks >> hook) & 1 && place.hooks?.includes(hook) === false)
  if (wrong.length > 0) return `cannot be reached from ${wrong.join(' and ')}`
  const { protocols } = place
  if (protocols === undefined) return null
  const given = protocols.includes(rule.proto) && (rule.invflags & IPT_INV_PROTO) === 0
  if (given) return place.syn === true && !wants_syn(rule) ? 'needs --syn' : null
  const names = Object.keys(PROTOCOLS).filter(name => protocols.includes(PROTOCOLS[name]!))
  return `needs -p ${names.join(' or ')}`
}

/** checkIptables - @throws RuleError, with `file:line` */
export function checkIptables(tables: Table[], file: string): void {
  const fail = (r: Rule, what: string): never => {
    throw new RuleError(file, r.line ?? 0, what)
  }
  for (const table of tables) {
    const hooks = reached(table, fail)
    for (const chain of table.chains)
      for (const r of chain.rules) {
        for (const [name, place] of places(r)) {
          const what = misplaced(place, r, table.name, hooks.get(chain) ?? 0)
          if (what !== null) fail(r, `${name} ${what}`)
        }
      }
  }
}
