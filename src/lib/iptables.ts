/**
 * iptables.ts - the rules of a table as bytes (linux/netfilter_ipv4/ip_tables.h), for the host that writes them and for the kernel
 * that checks and walks them. Offsets are in words; words are in the machine's own order, addresses are numbers as everywhere.
 *
 *   replace header (21 words)  name[32], valid_hooks, num_entries, size, hook_entry[5], underflow[5]
 *   entry (28 words)           struct ipt_ip, nfcache, target and next offset, comefrom, counters; then its matches, its target
 *   match or target (8 words)  size, a word of the kernel's own, name[24]; then its data
 */
export const R_NAME = 0
export const R_VALID_HOOKS = 8
export const R_NUM_ENTRIES = 9
export const R_SIZE = 10
export const R_HOOK_ENTRY = 11
export const R_UNDERFLOW = 16
export const REPLACE_WORDS = 21

export const E_SRC = 0
export const E_DST = 1
export const E_SMSK = 2
export const E_DMSK = 3
export const E_INIFACE = 4
export const E_OUTIFACE = 8
export const E_INMASK = 12
export const E_OUTMASK = 16
/** proto | flags << 16 | invflags << 24 */
export const E_PROTO = 20
export const E_NFCACHE = 21
/** target_offset | next_offset << 16, bytes */
export const E_OFFSETS = 22
export const E_COMEFROM = 23
/** Packets, bytes: two words each, the lower one first. */
export const E_PCNT = 24
export const E_BCNT = 26
export const ENTRY_WORDS = 28

export const X_SIZE = 0
export const X_KERNEL = 1
export const X_NAME = 2
export const EXT_WORDS = 8
export const EXT_NAME_MAX = 23

export const IPT_F_FRAG = 1
export const IPT_F_MASK = 1
export const IPT_INV_VIA_IN = 0x01
export const IPT_INV_VIA_OUT = 0x02
export const IPT_INV_SRCIP = 0x08
export const IPT_INV_DSTIP = 0x10
export const IPT_INV_FRAG = 0x20
export const IPT_INV_PROTO = 0x40
export const IPT_INV_MASK = 0x7f

/** Verdicts of a standard target: -v - 1, or the offset of a chain. */
export const VERDICT_DROP = -1
export const VERDICT_ACCEPT = -2
export const VERDICT_QUEUE = -4
export const IPT_RETURN = -5
/** A target that wants the next rule. */
export const IPT_CONTINUE = -1

export const HOOK_CHAINS = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']
export const TABLE_HOOKS: Record<string, number[]> = {
  filter: [1, 2, 3],
  mangle: [0, 1, 2, 3, 4],
  nat: [0, 3, 4],
}

export interface Extension {
  name: string
  words: number[]
}
export interface Rule {
  src: number
  smsk: number
  dst: number
  dmsk: number
  /** An interface's name; one that ends in + is the beginning of names. */
  iniface: string
  outiface: string
  proto: number
  flags: number
  invflags: number
  matches: Extension[]
  target: Extension | { chain: string } | { verdict: number }
  packets: number
  bytes: number
  /** Of the file that it was read from, if it was; the kernel does not hear of it. */
  line?: number
}
export interface Chain {
  name: string
  /** -1: a chain of the user's. */
  hook: number
  /** VERDICT_ACCEPT or VERDICT_DROP. */
  policy: number
  packets: number
  bytes: number
  rules: Rule[]
}
export interface Table {
  name: string
  chains: Chain[]
}

/** text_words - a zero-terminated text in so many words. */
export function text_words(text: string, words: number): number[] {
  const out = new Int32Array(words)
  const u8 = new Uint8Array(out.buffer)
  for (let k = 0; k < text.length && k < words * 4 - 1; k++) u8[k] = text.charCodeAt(k)
  return [...out]
}
/** words_text - the text back. */
export function words_text(words: ArrayLike<number>): string {
  const u8 = new Uint8Array(Int32Array.from(words).buffer)
  let text = ''
  for (let k = 0; k < u8.length && u8[k] !== 0; k++) text += String.fromCharCode(u8[k])
  return text
}

function iface_words(name: string): [number[], number[]] {
  const mask = new Int32Array(4)
  const m8 = new Uint8Array(mask.buffer)
  const whole = !name.endsWith('+')
  const text = whole ? name : name.slice(0, -1)
  const covered = name === '' ? 0 : text.length + (whole ? 1 : 0)
  m8.fill(255, 0, Math.min(16, covered))
  return [text_words(text, 4), [...mask]]
}

function extension_words(x: Extension): number[] {
  return [(EXT_WORDS + x.words.length) * 4, 0, ...text_words(x.name, 6), ...x.words]
}

/** empty_rule - one that everything matches. */
export function empty_rule(target: Rule['target']): Rule {
  return {
    src: 0,
    smsk: 0,
    dst: 0,
    dmsk: 0,
    iniface: '',
    outiface: '',
    proto: 0,
    flags: 0,
    invflags: 0,
    matches: [],
    target,
    packets: 0,
    bytes: 0,
  }
}

function rule_words(r: Rule, chain_at: (name: string) => number): number[] {
  const matches = r.matches.flatMap(extension_words)
  const { target } = r
  const verdict = 'verdict' in target ? target.verdict : 'chain' in target ? chain_at(target.chain) : null
  const t = extension_words(verdict === null ? (target as Extension) : { name: '', words: [verdict] })
  const target_offset = (ENTRY_WORDS + matches.length) * 4
  const next_offset = target_offset + t.length * 4
  const [iniface, inmask] = iface_words(r.iniface)
  const [outiface, outmask] = iface_words(r.outiface)
  const low = (n: number): number => (n % 4294967296) | 0
  const high = (n: number): number => Math.floor(n / 4294967296) | 0
  const head = [r.src, r.dst, r.smsk, r.dmsk, ...iniface, ...outiface, ...inmask, ...outmask]
  const counters = [low(r.packets), high(r.packets), low(r.bytes), high(r.bytes)]
  const proto = r.proto | (r.flags << 16) | (r.invflags << 24)
  return [...head, proto, 0, target_offset | (next_offset << 16), 0, ...counters, ...matches, ...t]
}

/**
 * table_blob - a table as one block of words: the chains of hooks in the order of the hooks, each with its policy at the end, then
 * those of the user, each behind an entry with its name and with a RETURN at its end; an ERROR entry ends it all.
 */
export function table_blob(table: Table): Int32Array<ArrayBuffer> {
  const builtin = table.chains.filter(c => c.hook >= 0).sort((a, b) => a.hook - b.hook)
  const own = table.chains.filter(c => c.hook < 0)
  const error = (name: string): Rule => empty_rule({ name: 'ERROR', words: text_words(name, 8) })
  const start = new Map<string, number>()
  const hook_entry = [0, 0, 0, 0, 0]
  const underflow = [0, 0, 0, 0, 0]
  const rules: Rule[] = []
  let at = 0
  const add = (r: Rule): void => {
    rules.push(r)
    at += rule_words(r, () => 0).length * 4
  }
  for (const c of builtin) {
    hook_entry[c.hook] = at
    c.rules.forEach(add)
    underflow[c.hook] = at
    add({ ...empty_rule({ verdict: c.policy }), packets: c.packets, bytes: c.bytes })
  }
  for (const c of own) {
    add(error(c.name))
    start.set(c.name, at)
    c.rules.forEach(add)
    add(empty_rule({ verdict: IPT_RETURN }))
  }
  add(error('ERROR'))
  const words = rules.flatMap(r => rule_words(r, name => start.get(name) ?? 0))
  const valid_hooks = builtin.reduce((mask, c) => mask | (1 << c.hook), 0)
  const header = [...text_words(table.name, 8), valid_hooks, rules.length, at, ...hook_entry, ...underflow]
  return Int32Array.from([...header, ...words])
}

/** initial_table - all policies ACCEPT and no rule. */
export function initial_table(name: string): Table {
  const chains = TABLE_HOOKS[name]!.map(hook => ({
    name: HOOK_CHAINS[hook]!,
    hook,
    policy: VERDICT_ACCEPT,
    packets: 0,
    bytes: 0,
    rules: [],
  }))
  return { name, chains }
}
