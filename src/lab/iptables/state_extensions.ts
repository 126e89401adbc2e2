/** state_extensions.ts - matches by what is remembered: of connections, of programs, of who was seen. Options to words, and back. */
import { text_words, words_text } from '../../lib/iptables.js'
import { bang, type ExtensionSpec, list, type Option } from './spec.js'
import { network, number, own, prefix, protocol, quoted, rate, rate_text, type Words } from './words.js'

const U32 = 0xffffffff

// ---- conntrack: see ipt_conntrack.ts ----------------------------------------------------------------------------------

const [STATE, PROTO, ADDRESS, STATUS, EXPIRES] = [1, 2, 4, 64, 128]
const CT_STATES: Record<string, number> = {
  INVALID: 1,
  NEW: 8,
  RELATED: 4,
  ESTABLISHED: 2,
  UNTRACKED: 256,
  SNAT: 64,
  DNAT: 128,
}
const CT_STATUS: Record<string, number> = { EXPECTED: 1, SEEN_REPLY: 2, ASSURED: 4, CONFIRMED: 8 }
const ADDRESSES = ['--ctorigsrc', '--ctorigdst', '--ctreplsrc', '--ctrepldst']

const asks = (d: number[], bit: number, inverted: boolean): void => {
  d[0]! |= bit | (inverted ? bit << 8 : 0)
}
const mask_of =
  (bit: number, index: number, what: string, names: Record<string, number>): Option =>
  (w, d, inverted) => {
    asks(d, bit, inverted)
    d[index] = list(w, what, name => own(names, name)).reduce((a, b) => a | b, 0)
  }
const names_of = (names: Record<string, number>, mask: number): string =>
  Object.keys(names)
    .filter(name => mask & names[name]!)
    .join(',')

function seconds(w: Words): [number, number] {
  const text = w.next('the seconds')
  const m = /^(\d+)(?::(\d*))?$/.exec(text)
  const low = Number(m?.[1] ?? Number.NaN)
  const high = m?.[2] === undefined ? low : m[2] === '' ? U32 : Number(m[2])
  if (!(low <= high && high <= U32)) w.fail(`'${text}' are no seconds such as 5 or 5:60`)
  return [low | 0, high | 0]
}

const conntrack: ExtensionSpec = {
  words: new Array(14).fill(0),
  options: {
    '--ctstate': mask_of(STATE, 1, 'state', CT_STATES),
    '--ctproto': (w, d, inverted) => {
      asks(d, PROTO, inverted)
      d[3] = protocol(w)
    },
    ...Object.fromEntries(
      ADDRESSES.map((name, k): [string, Option] => [
        name,
        (w, d, inverted) => {
          asks(d, ADDRESS << k, inverted)
          ;[d[4 + k], d[8 + k]] = network(w, 'the address')
        },
      ]),
    ),
    '--ctstatus': mask_of(STATUS, 2, 'status', { ...CT_STATUS, NONE: 0 }),
    '--ctexpire': (w, d, inverted) => {
      asks(d, EXPIRES, inverted)
      d.splice(12, 2, ...seconds(w))
    },
  },
  save: d => {
    const [low, high] = [d[12]! >>> 0, d[13]! >>> 0]
    const parts: [number, string][] = [
      [STATE, `--ctstate ${names_of(CT_STATES, d[1]!)}`],
      [PROTO, `--ctproto ${d[3]}`],
      ...ADDRESSES.map((name, k): [number, string] => [ADDRESS << k, `${name} ${prefix(d[4 + k]!, d[8 + k]!)}`]),
      [STATUS, `--ctstatus ${names_of(CT_STATUS, d[2]!) || 'NONE'}`],
      [EXPIRES, `--ctexpire ${low === high ? low : `${low}:${high}`}`],
    ]
    return parts
      .filter(([bit]) => (d[0]! & bit) !== 0)
      .map(([bit, text]) => ` ${bang(((d[0]! >> 8) & bit) !== 0)}${text}`)
      .join('')
  },
}

/** owner: uid, what is asked, what of it is inverted. */
const owner: ExtensionSpec = {
  words: [0, 0, 0],
  options: {
    '--uid-owner': (w, d, inverted) => {
      d.splice(0, 3, number(w, 'the uid', 0x7fffffff), 1, inverted ? 1 : 0)
    },
  },
  save: d => ` ${bang(d[2] !== 0)}--uid-owner ${d[0]}`,
}

// ---- recent: seconds, hits, what is done, invert, side, the kernel's own, then 32 bytes of name -----------------------

const [TTL, DEST] = [16, 1]
const DOES: Record<string, number> = { '--set': 2, '--rcheck': 1, '--update': 4, '--remove': 8 }
const RECENT_NAME = 6
const NAME_WORDS = 8

function name_words(w: Words, words: number): number[] {
  const text = w.next('the name')
  if (text.length >= words * 4 || !/^[^\s/]+$/.test(text)) w.fail(`'${text}' cannot be the name of a list`)
  return [...text_words(text, words)]
}

const recent: ExtensionSpec = {
  words: [0, 0, 0, 0, 0, 0, ...text_words('DEFAULT', NAME_WORDS)],
  oneOf: Object.keys(DOES),
  bare: [...Object.keys(DOES), '--rttl', '--rsource', '--rdest'],
  options: {
    ...Object.fromEntries(
      Object.entries(DOES).map(([name, bit]): [string, Option] => [
        name,
        (w, d, inverted) => {
          if ((d[2]! & ~TTL) !== 0) w.fail(`'${name}' is one thing too many that match recent does`)
          d[2]! |= bit
          d[3] = inverted ? 1 : 0
        },
      ]),
    ),
    '--seconds': (w, d) => {
      d[0] = number(w, 'the seconds', 0x7fffffff)
    },
    '--hitcount': (w, d) => {
      d[1] = number(w, 'the number of hits', 255)
    },
    '--rttl': (_w, d) => {
      d[2]! |= TTL
    },
    '--name': (w, d) => {
      d.splice(RECENT_NAME, NAME_WORDS, ...name_words(w, NAME_WORDS))
    },
    '--rsource': (_w, d) => {
      d[4] = 0
    },
    '--rdest': (_w, d) => {
      d[4] = DEST
    },
  },
  save: d => {
    const does = Object.keys(DOES).find(name => d[2]! & DOES[name]!)
    const parts = [
      `${bang(d[3] !== 0)}${does}`,
      d[0] === 0 ? '' : `--seconds ${d[0]}`,
      d[1] === 0 ? '' : `--hitcount ${d[1]}`,
      (d[2]! & TTL) === 0 ? '' : '--rttl',
      `--name ${quoted(words_text(d.slice(RECENT_NAME)))}`,
      d[4] === DEST ? '--rdest' : '--rsource',
    ]
    return parts.map(p => (p === '' ? '' : ` ${p}`)).join('')
  },
}

// ---- hashlimit: rate, burst, mode, most entries, ms between two looks, ms that one stays, the kernel's own, 16 bytes of name --

const MODES: Record<string, number> = { srcip: 4, srcport: 8, dstip: 1, dstport: 2 }
const LIMIT_NAME = 7
/** Option, index, what it is without. */
const NUMBERS: [string, number, number][] = [
  ['--hashlimit-htable-max', 3, 0],
  ['--hashlimit-htable-gcinterval', 4, 1000],
  ['--hashlimit-htable-expire', 5, 10000],
]

const hashlimit: ExtensionSpec = {
  words: [0, 5, 0, 0, 1000, 10000, 0, 0, 0, 0, 0],
  needs: ['--hashlimit', '--hashlimit-mode', '--hashlimit-name'],
  options: {
    '--hashlimit': (w, d) => {
      d[0] = rate(w)
    },
    '--hashlimit-burst': (w, d) => {
      d[1] = number(w, 'the burst', 10000, 1)
    },
    '--hashlimit-mode': (w, d) => {
      const modes = w.next('the mode').split(/[,-]/)
      d[2] = modes.reduce((n, m) => n | (own(MODES, m) ?? w.fail(`there is no mode '${m}'`)), 0)
    },
    '--hashlimit-name': (w, d) => {
      d.splice(LIMIT_NAME, 4, ...name_words(w, 4))
    },
    ...Object.fromEntries(
      NUMBERS.map(([name, index]): [string, Option] => [
        name,
        (w, d) => {
          d[index] = number(w, 'the number', 0x7fffffff, 1)
        },
      ]),
    ),
  },
  save: d => {
    const parts = [
      `--hashlimit ${rate_text(d[0]!)}`,
      d[1] === 5 ? '' : `--hashlimit-burst ${d[1]}`,
      `--hashlimit-mode ${names_of(MODES, d[2]!).replaceAll(',', '-')}`,
      `--hashlimit-name ${quoted(words_text(d.slice(LIMIT_NAME)))}`,
      ...NUMBERS.map(([name, index, without]) => (d[index] === without ? '' : `${name} ${d[index]}`)),
    ]
    return parts.map(p => (p === '' ? '' : ` ${p}`)).join('')
  },
}

export const STATE_MATCHES: Record<string, ExtensionSpec> = { conntrack, owner, recent, hashlimit }
