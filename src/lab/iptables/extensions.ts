/** extensions.ts - the options of each match and target, as the words that the kernel reads, and back. */

import { text_words, words_text } from '../../lib/iptables.js'
import { dotted } from '../addresses.js'
import { HEADER_MATCHES, HEADER_TARGETS } from './header_extensions.js'
import { bang, type ExtensionSpec, list, type Option, span } from './spec.js'
import { STATE_MATCHES } from './state_extensions.js'
import { address, choice, network, number, own, prefix, range, rate, rate_text, type Words } from './words.js'

const ALL = 0xffff0000 | 0

const ports =
  (index: number, flag: number, shift: number): Option =>
  (w, d, inverted) => {
    d[index] = range(w, 'the port')
    if (inverted) d[2]! |= flag << shift
  }
const save_ports = (d: number[], shift: number): string =>
  [
    d[0] === ALL ? '' : ` ${bang(((d[2]! >>> shift) & 1) !== 0)}--sport ${span(d[0]!)}`,
    d[1] === ALL ? '' : ` ${bang(((d[2]! >>> shift) & 2) !== 0)}--dport ${span(d[1]!)}`,
  ].join('')

const FLAGS: Record<string, number> = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16, URG: 32, ALL: 63, NONE: 0 }
function flags(w: Words, what: string): number {
  return w
    .next(what)
    .split(',')
    .reduce((n, f) => {
      const flag = own(FLAGS, f)
      if (flag === undefined) w.fail(`there is no flag '${f}'`)
      return n | flag
    }, 0)
}
const flag_names = (n: number): string =>
  Object.keys(FLAGS)
    .slice(0, 6)
    .filter(f => n & FLAGS[f]!)
    .join(',') || 'NONE'

export const ICMP_TYPES: Record<string, [number, number, number]> = {
  any: [255, 0, 255],
  'echo-reply': [0, 0, 255],
  'destination-unreachable': [3, 0, 255],
  'network-unreachable': [3, 0, 0],
  'host-unreachable': [3, 1, 1],
  'protocol-unreachable': [3, 2, 2],
  'port-unreachable': [3, 3, 3],
  'fragmentation-needed': [3, 4, 4],
  'source-quench': [4, 0, 255],
  redirect: [5, 0, 255],
  'echo-request': [8, 0, 255],
  'time-exceeded': [11, 0, 255],
  'parameter-problem': [12, 0, 255],
  'timestamp-request': [13, 0, 255],
  'timestamp-reply': [14, 0, 255],
}
function icmp_type(w: Words): number {
  const text = w.next('the ICMP type')
  const named = own(ICMP_TYPES, text) ?? null
  const m = /^(\d+)(?:\/(\d+))?$/.exec(text)
  if (named === null && m === null) w.fail(`there is no ICMP type '${text}'`)
  const [type, low, high] = named ?? [Number(m![1]), Number(m![2] ?? 0), Number(m![2] ?? 255)]
  if (type > 255 || high > 255) w.fail(`there is no ICMP type '${text}'`)
  return type | (low << 8) | (high << 16)
}

const STATES: Record<string, number> = { INVALID: 1, ESTABLISHED: 2, RELATED: 4, NEW: 8, UNTRACKED: 64 }
const TYPES = [
  'UNSPEC',
  'UNICAST',
  'LOCAL',
  'BROADCAST',
  'ANYCAST',
  'MULTICAST',
  'BLACKHOLE',
  'UNREACHABLE',
  'PROHIBIT',
  'THROW',
]

function multiport(flag: number): Option {
  return (w, d, inverted) => {
    const text = w.next('the ports')
    const words = text.split(',').flatMap(p => {
      const m = /^(\d+)(?::(\d+))?$/.exec(p)
      const [a, b] = m === null ? [Number.NaN, 0] : [Number(m[1]), Number(m[2] ?? m[1])]
      if (!(a <= b && b <= 65535)) w.fail(`'${p}' is no port and no range of ports`)
      return m![2] === undefined ? [a] : [a | (1 << 16), b]
    })
    if (words.length > 15) w.fail(`'${text}' has more than 15 ports`)
    d[0] = flag | (words.length << 8) | (inverted ? 1 << 16 : 0)
    for (const [k, n] of words.entries()) d[k + 1] = n
  }
}
function save_multiport(d: number[]): string {
  const texts: string[] = []
  for (let k = 1; k <= ((d[0]! >> 8) & 255); k++)
    texts.push(d[k]! >>> 16 === 0 ? `${d[k]}` : `${d[k]! & 0xffff}:${d[++k]}`)
  return ` ${bang(d[0]! >>> 16 !== 0)}--${['sports', 'dports', 'ports'][d[0]! & 255]} ${texts.join(',')}`
}

function addresses(w: Words): [number, number] {
  const text = w.next('the range of addresses')
  const [a, b, more] = text.split('-')
  if (b === undefined || more !== undefined) w.fail(`'${text}' is no range of addresses`)
  return [address(w, a!), address(w, b)]
}

function mac(w: Words, d: number[], inverted: boolean): void {
  const text = w.next('the station address')
  if (!/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(text)) w.fail(`'${text}' is no station address`)
  const b = text.split(':').map(x => Number.parseInt(x, 16))
  d[0] = (b[0]! << 24) | (b[1]! << 16) | (b[2]! << 8) | b[3]!
  d[1] = (((b[4]! << 8) | b[5]!) << 16) >> 16
  d[2] = inverted ? 1 : 0
}

export const MATCHES: Record<string, ExtensionSpec> = {
  ...HEADER_MATCHES,
  ...STATE_MATCHES,
  tcp: {
    words: [ALL, ALL, 0],
    alone: true,
    bare: ['--syn'],
    options: {
      '--sport': ports(0, 1, 24),
      '--source-port': ports(0, 1, 24),
      '--dport': ports(1, 2, 24),
      '--destination-port': ports(1, 2, 24),
      '--syn': (_w, d, inverted) => {
        d[2]! |= (0x17 << 8) | (0x02 << 16) | (inverted ? 4 << 24 : 0)
      },
      '--tcp-flags': (w, d, inverted) => {
        d[2]! |= (flags(w, 'the mask of flags') << 8) | (flags(w, 'the flags') << 16) | (inverted ? 4 << 24 : 0)
      },
      '--tcp-option': (w, d, inverted) => {
        d[2]! |= number(w, 'the option', 255, 1) | (inverted ? 8 << 24 : 0)
      },
    },
    save: d =>
      `${save_ports(d, 24)}${((d[2]! >> 8) & 255) === 0 ? '' : ` ${bang(((d[2]! >>> 26) & 1) !== 0)}--tcp-flags ${flag_names((d[2]! >> 8) & 255)} ${flag_names((d[2]! >> 16) & 255)}`}` +
      `${(d[2]! & 255) === 0 ? '' : ` ${bang(((d[2]! >>> 27) & 1) !== 0)}--tcp-option ${d[2]! & 255}`}`,
  },
  udp: {
    words: [ALL, ALL, 0],
    alone: true,
    options: {
      '--sport': ports(0, 1, 0),
      '--source-port': ports(0, 1, 0),
      '--dport': ports(1, 2, 0),
      '--destination-port': ports(1, 2, 0),
    },
    save: d => save_ports(d, 0),
  },
  icmp: {
    words: [255 | (255 << 16)],
    alone: true,
    options: {
      '--icmp-type': (w, d, inverted) => {
        d[0] = icmp_type(w) | (inverted ? 1 << 24 : 0)
      },
    },
    save: d => {
      const [type, low, high] = [d[0]! & 255, (d[0]! >> 8) & 255, (d[0]! >> 16) & 255]
      return ` ${bang(d[0]! >>> 24 !== 0)}--icmp-type ${type === 255 ? 'any' : low === 0 && high === 255 ? type : `${type}/${low}`}`
    },
  },
  state: {
    words: [0],
    options: {
      '--state': (w, d, inverted) => {
        const mask = list(w, 'state', s => own(STATES, s)).reduce((a, b) => a | b, 0)
        d[0] = inverted ? 79 & ~mask : mask
      },
    },
    save: d =>
      ` --state ${Object.keys(STATES)
        .filter(s => d[0]! & STATES[s]!)
        .join(',')}`,
  },
  limit: {
    words: [12_000_000, 5, 0, 0, 0, 0, 0],
    alone: true,
    options: {
      '--limit': (w, d) => {
        d[0] = rate(w)
      },
      '--limit-burst': (w, d) => {
        d[1] = number(w, 'the burst', 10000, 1)
      },
    },
    save: d => ` --limit ${rate_text(d[0]!)}${d[1] === 5 ? '' : ` --limit-burst ${d[1]}`}`,
  },
  mac: {
    words: [0, 0, 0],
    options: { '--mac-source': mac },
    save: d => {
      const hex = [d[0]! >>> 24, d[0]! >> 16, d[0]! >> 8, d[0]!, d[1]! >> 8, d[1]!].map(b =>
        (b & 255).toString(16).padStart(2, '0').toUpperCase(),
      )
      return ` ${bang(d[2] !== 0)}--mac-source ${hex.join(':')}`
    },
  },
  mark: {
    words: [0, -1, 0],
    options: {
      '--mark': (w, d, inverted) => {
        const text = w.next('the mark')
        const [value, mask] = text.split('/').map(Number)
        if (!(value! >= 0 && value! <= 0xffffffff && !(mask! < 0) && !Number.isNaN(mask ?? 0)))
          w.fail(`'${text}' is no mark`)
        d[0] = value! | 0
        d[1] = (mask ?? 0xffffffff) | 0
        d[2] = inverted ? 1 : 0
      },
    },
    save: d =>
      ` ${bang(d[2] !== 0)}--mark 0x${(d[0]! >>> 0).toString(16)}${d[1] === -1 ? '' : `/0x${(d[1]! >>> 0).toString(16)}`}`,
  },
  multiport: {
    words: new Array(16).fill(0),
    options: {
      '--sports': multiport(0),
      '--source-ports': multiport(0),
      '--dports': multiport(1),
      '--destination-ports': multiport(1),
      '--ports': multiport(2),
    },
    save: save_multiport,
  },
  length: {
    words: [ALL, 0],
    options: {
      '--length': (w, d, inverted) => {
        d[0] = range(w, 'the length')
        d[1] = inverted ? 1 : 0
      },
    },
    save: d => ` ${bang(d[1] !== 0)}--length ${span(d[0]!)}`,
  },
  ttl: {
    words: [0],
    options: {
      '--ttl-eq': (w, d, inverted) => {
        d[0] = (inverted ? 1 : 0) | (number(w, 'the TTL', 255) << 8)
      },
      '--ttl-lt': (w, d) => {
        d[0] = 2 | (number(w, 'the TTL', 255) << 8)
      },
      '--ttl-gt': (w, d) => {
        d[0] = 3 | (number(w, 'the TTL', 255) << 8)
      },
    },
    save: d => ` ${bang((d[0]! & 255) === 1)}--ttl-${['eq', 'eq', 'lt', 'gt'][d[0]! & 255]} ${d[0]! >> 8}`,
  },
  tos: {
    words: [0],
    options: {
      '--tos': (w, d, inverted) => {
        d[0] = number(w, 'the TOS', 255) | (inverted ? 256 : 0)
      },
    },
    save: d => ` ${bang(d[0]! >> 8 !== 0)}--tos 0x${(d[0]! & 255).toString(16).padStart(2, '0')}`,
  },
  pkttype: {
    words: [0, 0],
    options: {
      '--pkt-type': (w, d, inverted) => {
        d[0] = choice(w, 'the type', { unicast: 0, host: 0, broadcast: 1, multicast: 2 })
        d[1] = inverted ? 1 : 0
      },
    },
    save: d => ` ${bang(d[1] !== 0)}--pkt-type ${['unicast', 'broadcast', 'multicast'][d[0]!]}`,
  },
  addrtype: {
    words: [0, 0],
    options: Object.fromEntries(
      ['--src-type', '--dst-type'].map((name, k) => [
        name,
        (w: Words, d: number[], inverted: boolean) => {
          const types = list(w, 'type', t => (TYPES.includes(t) ? TYPES.indexOf(t) : undefined))
          d[0]! |= types.reduce((mask, t) => mask | (1 << t), 0) << (16 * k)
          d[1]! |= (inverted ? 1 : 0) << k
        },
      ]),
    ),
    save: d =>
      ['--src-type', '--dst-type']
        .map((name, k) => {
          const mask = (d[0]! >>> (16 * k)) & 0xffff
          return mask === 0
            ? ''
            : ` ${bang(((d[1]! >> k) & 1) !== 0)}${name} ${TYPES.filter((_, t) => mask & (1 << t)).join(',')}`
        })
        .join(''),
  },
  iprange: {
    words: [0, 0, 0, 0, 0],
    options: Object.fromEntries(
      ['--src-range', '--dst-range'].map((name, k) => [
        name,
        (w: Words, d: number[], inverted: boolean) => {
          d[0]! |= (1 << k) | ((inverted ? 16 : 0) << k)
          ;[d[1 + 2 * k], d[2 + 2 * k]] = addresses(w)
        },
      ]),
    ),
    save: d =>
      ['--src-range', '--dst-range']
        .map((name, k) =>
          ((d[0]! >> k) & 1) === 0
            ? ''
            : ` ${bang(((d[0]! >> (4 + k)) & 1) !== 0)}${name} ${dotted(d[1 + 2 * k]!)}-${dotted(d[2 + 2 * k]!)}`,
        )
        .join(''),
  },
}

const REJECTS = [
  'icmp-net-unreachable',
  'icmp-host-unreachable',
  'icmp-proto-unreachable',
  'icmp-port-unreachable',
  '',
  'icmp-net-prohibited',
  'icmp-host-prohibited',
  'tcp-reset',
  'icmp-admin-prohibited',
]
const REJECT_BY = {
  ...Object.fromEntries(REJECTS.flatMap((r, k) => (r === '' ? [] : [[r, k]]))),
  'port-unreach': 3,
  'host-unreach': 1,
}

/** Address translation: flags (1 addresses, 2 ports), first and last address, first | last << 16 port. */
function to(option: string, addressed: boolean): ExtensionSpec {
  return {
    words: [0, 0, 0, 0],
    ...(addressed ? {} : { alone: true as const }),
    options: {
      [option]: (w: Words, d: number[]) => {
        const text = w.next('where to')
        const m = addressed
          ? /^([\d.]*)(?:-([\d.]+))?(?::(\d+)(?:-(\d+))?)?$/.exec(text)
          : /^()()(\d+)(?:-(\d+))?$/.exec(text)
        if (m === null || text === '') {
          w.fail(`'${text}' is no ${addressed ? 'range of addresses and ports' : 'port and no range of ports'}`)
        }
        if (m[1]! !== '') {
          d[1] = address(w, m[1]!)
          d[2] = m[2] === undefined ? d[1] : address(w, m[2])
          d[0]! |= 1
        }
        if (m[3] === undefined) return
        const [low, high] = [Number(m[3]), Number(m[4] ?? m[3])]
        if (!(low >= 1 && low <= high && high <= 65535)) w.fail(`'${text}' has no range of ports from 1 to 65535`)
        d[0]! |= 2
        d[3] = low | (high << 16)
      },
    },
    save: d => {
      const where = (d[0]! & 1) === 0 ? '' : `${dotted(d[1]!)}${d[1] === d[2] ? '' : `-${dotted(d[2]!)}`}`
      const port = (d[0]! & 2) === 0 ? '' : `${addressed ? ':' : ''}${span(d[3]!, '-')}`
      return where + port === '' ? '' : ` ${option} ${where}${port}`
    },
  }
}

export const TARGETS: Record<string, ExtensionSpec> = {
  ...HEADER_TARGETS,
  REJECT: {
    words: [3],
    alone: true,
    options: {
      '--reject-with': (w, d) => {
        d[0] = choice(w, 'how to reject', REJECT_BY)
      },
    },
    save: d => ` --reject-with ${REJECTS[d[0]!]}`,
  },
  LOG: {
    words: [4, 0, 0, 0, 0, 0, 0, 0, 0],
    alone: true,
    options: {
      '--log-level': (w, d) => {
        d[0] = number(w, 'the level', 7)
      },
      '--log-prefix': (w, d) => {
        const text = w.next('the prefix')
        if (text.length > 29) w.fail(`the prefix '${text}' is longer than 29 characters`)
        d.splice(1, 8, ...text_words(text, 8))
      },
    },
    save: d => {
      const prefix = words_text(d.slice(1))
      return `${prefix === '' ? '' : ` --log-prefix "${prefix.replace(/(["\\])/g, '\\$1')}"`}${d[0] === 4 ? '' : ` --log-level ${d[0]}`}`
    },
  },
  MARK: {
    words: [0],
    options: {
      '--set-mark': (w, d) => {
        d[0] = number(w, 'the mark', 0xffffffff) | 0
      },
    },
    save: d => ` --set-mark 0x${(d[0]! >>> 0).toString(16)}`,
  },
  TOS: {
    words: [0],
    options: {
      '--set-tos': (w, d) => {
        d[0] = number(w, 'the TOS', 255)
      },
    },
    save: d => ` --set-tos 0x${d[0]!.toString(16).padStart(2, '0')}`,
  },
  TTL: {
    words: [0],
    options: Object.fromEntries(
      ['--ttl-set', '--ttl-inc', '--ttl-dec'].map((name, k) => [
        name,
        (w: Words, d: number[]) => {
          d[0] = k | (number(w, 'the TTL', 255, k === 0 ? 0 : 1) << 8)
        },
      ]),
    ),
    save: d => ` --ttl-${['set', 'inc', 'dec'][d[0]! & 255]} ${d[0]! >> 8}`,
  },
  SNAT: to('--to-source', true),
  DNAT: to('--to-destination', true),
  MASQUERADE: to('--to-ports', false),
  REDIRECT: to('--to-ports', false),
  NETMAP: {
    words: [0, 0, 0, 0],
    options: {
      '--to': (w, d) => {
        const [addr, mask] = network(w, 'the net')
        d.splice(0, 3, 1, addr, addr | ~mask)
      },
    },
    save: d => ` --to ${prefix(d[1]!, ~(d[1]! ^ d[2]!))}`,
  },
}
