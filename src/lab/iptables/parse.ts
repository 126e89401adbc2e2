/** parse.ts - a file of iptables-save as tables. Errors are UsageErrors of one line: FILE:LINE: what is wrong, and which word. */
import {
  type Chain,
  empty_rule,
  HOOK_CHAINS,
  IPT_F_FRAG,
  IPT_INV_DSTIP,
  IPT_INV_FRAG,
  IPT_INV_PROTO,
  IPT_INV_SRCIP,
  IPT_INV_VIA_IN,
  IPT_INV_VIA_OUT,
  IPT_RETURN,
  initial_table,
  type Rule,
  TABLE_HOOKS,
  type Table,
  VERDICT_ACCEPT,
  VERDICT_DROP,
  VERDICT_QUEUE,
} from '../../lib/iptables.js'
import { MATCHES, TARGETS } from './extensions.js'
import type { ExtensionSpec, Option } from './spec.js'
import { network, number, own, protocol, RuleError, split, Words } from './words.js'

export { RuleError }

const VERDICTS: Record<string, number> = {
  ACCEPT: VERDICT_ACCEPT,
  DROP: VERDICT_DROP,
  QUEUE: VERDICT_QUEUE,
  RETURN: IPT_RETURN,
}

function counters(w: Words, text: string): [number, number] {
  const m = /^\[(\d+):(\d+)\]$/.exec(text)
  const both: [number, number] = [Number(m?.[1] ?? Number.NaN), Number(m?.[2] ?? Number.NaN)]
  if (!both.every(Number.isSafeInteger)) w.fail(`'${text}' are no counters such as [0:0]`)
  return both
}

function declare(table: Table, w: Words): void {
  const name = w.next('the chain').slice(1)
  const hook = HOOK_CHAINS.indexOf(name)
  const policy = w.next('the policy')
  const text = w.done ? '[0:0]' : w.next('')
  const [packets, bytes] = counters(w, text)
  w.end()
  if (hook >= 0) {
    const chain = table.chains.find(c => c.hook === hook)
    if (chain === undefined) w.fail(`table ${table.name} has no chain ${name}`)
    if (policy !== 'ACCEPT' && policy !== 'DROP') w.fail(`the policy '${policy}' must be ACCEPT or DROP`)
    Object.assign(chain, { policy: VERDICTS[policy], packets, bytes })
    return
  }
  if (!/^[\w-]{1,29}$/.test(name) || own(VERDICTS, name) !== undefined || own(TARGETS, name) !== undefined)
    w.fail(`'${name}' cannot be the name of a chain`)
  if (policy !== '-') w.fail(`chain ${name} is no chain of a hook and has no policy '${policy}'`)
  if (table.chains.some(c => c.name === name)) w.fail(`chain ${name} is there twice`)
  table.chains.push({ name, hook: -1, policy: 0, packets: 0, bytes: 0, rules: [] })
}

interface Draft {
  rule: Rule
  /** Options that can come next, and the data that they fill. */
  options: Map<string, { option: Option; data: number[]; bare: boolean }>
  target: string | null
  given: Set<string>
}

function extend(d: Draft, spec: ExtensionSpec): number[] {
  const data = [...spec.words]
  for (const [name, option] of Object.entries(spec.options)) {
    const bare = spec.bare?.includes(name) === true
    d.options.set(name, { option, data, bare })
  }
  return data
}

function add_match(w: Words, d: Draft, name: string): void {
  const spec = own(MATCHES, name)
  if (spec === undefined) w.fail(`there is no match '${name}'`)
  if (!d.rule.matches.some(m => m.name === name)) d.rule.matches.push({ name, words: extend(d, spec) })
}

function iface(w: Words): string {
  const name = w.next('the interface')
  if (!/^[^\s/]{1,15}$/.test(name)) w.fail(`'${name}' cannot be the name of an interface`)
  return name === '+' ? '' : name
}

function jump(w: Words, d: Draft, table: Table): void {
  const name = w.next('the target')
  if (d.target !== null) w.fail(`a second target '${name}'`)
  d.target = name
  const verdict = own(VERDICTS, name)
  if (verdict !== undefined) d.rule.target = { verdict }
  else if (Object.hasOwn(TARGETS, name)) d.rule.target = { name, words: extend(d, TARGETS[name]!) }
  else if (table.chains.some(c => c.name === name && c.hook < 0)) d.rule.target = { chain: name }
  else w.fail(`there is no target or chain '${name}'`)
}

const COMMON: Record<string, (w: Words, d: Draft, inverted: boolean, table: Table) => void> = {
  '-s': (w, { rule }, inverted) => {
    ;[rule.src, rule.smsk] = network(w, 'the source')
    if (inverted) rule.invflags |= IPT_INV_SRCIP
  },
  '-d': (w, { rule }, inverted) => {
    ;[rule.dst, rule.dmsk] = network(w, 'the destination')
    if (inverted) rule.invflags |= IPT_INV_DSTIP
  },
  '-i': (w, { rule }, inverted) => {
    rule.iniface = iface(w)
    if (inverted) rule.invflags |= IPT_INV_VIA_IN
  },
  '-o': (w, { rule }, inverted) => {
    rule.outiface = iface(w)
    if (inverted) rule.invflags |= IPT_INV_VIA_OUT
  },
  '-p': (w, d, inverted) => {
    d.rule.proto = protocol(w)
    if (inverted) d.rule.invflags |= IPT_INV_PROTO
  },
  '-f': (_w, { rule }, inverted) => {
    rule.flags |= IPT_F_FRAG
    if (inverted) rule.invflags |= IPT_INV_FRAG
  },
  '-m': (w, d) => add_match(w, d, w.next('the match')),
  '-j': (w, d, _inverted, table) => jump(w, d, table),
  '-c': (w, { rule }) => {
    rule.packets = number(w, 'the number of packets', Number.MAX_SAFE_INTEGER)
    rule.bytes = number(w, 'the number of bytes', Number.MAX_SAFE_INTEGER)
  },
}
/** Of these there is no opposite. */
const PLAIN = ['-m', '-j', '-c']
const LONG: Record<string, string> = {
  '--source': '-s',
  '--src': '-s',
  '--destination': '-d',
  '--dst': '-d',
  '--in-interface': '-i',
  '--out-interface': '-o',
  '--protocol': '-p',
  '--proto': '-p',
  '--fragment': '-f',
  '--match': '-m',
  '--jump': '-j',
  '--set-counters': '-c',
}
const PROTOCOL_OF: Record<number, string> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 50: 'esp', 51: 'ah' }

function parse_option(w: Words, d: Draft, table: Table): void {
  const before = w.not()
  const word = w.next('an option')
  const short = own(LONG, word) ?? word
  if (short !== '-m' && d.given.has(short)) w.fail(`'${word}' is there twice`)
  d.given.add(short)
  const inverted = (takes: boolean, bare: boolean): boolean => {
    const not = (!bare && w.not()) || before
    if (not && !takes) w.fail(`'${word}' knows no '!'`)
    return not
  }
  const common = own(COMMON, short)
  if (common !== undefined) {
    common(w, d, inverted(!PLAIN.includes(short), short === '-f'), table)
    return
  }
  const implied = PROTOCOL_OF[d.rule.proto]
  if (!d.options.has(word) && implied !== undefined && Object.hasOwn(MATCHES[implied]!.options, word))
    add_match(w, d, implied)
  const found = d.options.get(word)
  if (found === undefined) w.fail(`there is no option '${word}' here`)
  found.option(w, found.data, inverted(found.option.length > 2, found.bare)) // who does not look at it knows none
}

function says_something(w: Words, d: Draft, kind: string, name: string, spec: ExtensionSpec | undefined): void {
  if (spec === undefined || spec.alone === true) return
  const missing = spec.needs?.find(o => !d.given.has(o))
  if (missing !== undefined) w.fail(`${kind} ${name} says nothing without ${missing}`)
  const options = spec.oneOf ?? Object.keys(spec.options)
  if (!options.some(o => d.given.has(o))) w.fail(`${kind} ${name} says nothing without ${options.join(' or ')}`)
}

function append(table: Table, w: Words, packets: number, bytes: number): void {
  const name = w.next('the chain')
  const chain: Chain | undefined = table.chains.find(c => c.name === name)
  if (chain === undefined) w.fail(`there is no chain '${name}'`)
  const d: Draft = {
    rule: { ...empty_rule({ verdict: 0 }), packets, bytes, line: w.line },
    options: new Map(),
    target: null,
    given: new Set(),
  }
  while (!w.done) parse_option(w, d, table)
  if (d.target === null) w.fail('the rule has no target (-j)')
  const { rule } = d
  for (const m of rule.matches) says_something(w, d, 'match', m.name, MATCHES[m.name])
  says_something(w, d, 'target', d.target, own(TARGETS, d.target))
  if ((rule.invflags & IPT_INV_PROTO) !== 0 && rule.proto === 0) w.fail(`'! -p all' matches nothing`)
  const hook = chain.hook
  if (rule.iniface !== '' && (hook === 3 || hook === 4))
    w.fail(`chain ${name} knows no interface '${rule.iniface}' that a packet came in by`)
  if (rule.outiface !== '' && (hook === 0 || hook === 1))
    w.fail(`chain ${name} knows no interface '${rule.outiface}' that a packet goes out by`)
  chain.rules.push(rule)
}

/** parseIptables - @throws RuleError, with `file:line` */
export function parseIptables(text: string, file: string): Table[] {
  const state: { tables: Table[]; open: Table | null } = { tables: [], open: null }
  const lines = text.split(/\r?\n/)
  for (const [k, line] of lines.entries()) parse_line(new Words(split(line), file, k + 1), state)
  if (state.open !== null) throw new RuleError(file, lines.length, `COMMIT of table '${state.open.name}' is missing`)
  return state.tables
}

function parse_line(w: Words, state: { tables: Table[]; open: Table | null }): void {
  const first = w.peek()
  if (first === undefined || first.startsWith('#')) return
  const table = state.open
  if (first.startsWith('*')) {
    const name = w.next('the table').slice(1)
    w.end()
    if (table !== null) w.fail(`table '${name}' begins before COMMIT of table '${table.name}'`)
    if (!Object.hasOwn(TABLE_HOOKS, name)) w.fail(`there is no table '${name}'`)
    if (state.tables.some(t => t.name === name)) w.fail(`table '${name}' is there twice`)
    state.open = initial_table(name)
  } else if (table === null) w.fail(`'${first}' stands outside of a table`)
  else if (first === 'COMMIT') {
    w.next('COMMIT')
    w.end()
    state.tables.push(table)
    state.open = null
  } else if (first.startsWith(':')) declare(table, w)
  else {
    const [packets, bytes] = first.startsWith('[') ? counters(w, w.next('')) : [0, 0]
    const command = w.next('-A')
    if (command !== '-A' && command !== '--append') w.fail(`'${command}' is no -A`)
    append(table, w, packets, bytes)
  }
}
