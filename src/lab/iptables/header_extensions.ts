/** header_extensions.ts - matches of single header fields and the targets that set them: options to words, and back. */
import { text_words, words_text } from '../../lib/iptables.js'
import { bang, type ExtensionSpec, type Option, span } from './spec.js'
import { number, own, range, type Words } from './words.js'

const hex = (n: number, digits: number): string => `0x${n.toString(16).padStart(digits, '0')}`

/** Names of code points (RFC 2474, 2597, 3246). */
const CLASSES: Record<string, number> = { BE: 0, EF: 0x2e }
for (let n = 0; n < 8; n++) CLASSES[`CS${n}`] = n << 3
for (let n = 1; n < 5; n++) for (let d = 1; d < 4; d++) CLASSES[`AF${n}${d}`] = (n << 3) | (d << 1)

function dscp_class(w: Words): number {
  const text = w.next('the class')
  return own(CLASSES, text.toUpperCase()) ?? w.fail(`there is no class '${text}'`)
}

// Operations of ecn and ECN
const [IP, ECE, CWR] = [0x01, 0x10, 0x20]

function spi(w: Words, text: string): number {
  const n = /^(0x[0-9a-fA-F]+|\d+)$/.test(text) ? Number(text) : Number.NaN
  if (!(n <= 0xffffffff)) w.fail(`'${text}' is no SPI`)
  return n
}
/** first, last, invert */
function spis(option: string): ExtensionSpec {
  return {
    words: [0, -1, 0],
    alone: true,
    options: {
      [option]: (w, d, inverted) => {
        const text = w.next('the SPI')
        const [a, b, more] = text.split(':')
        const low = a === '' ? 0 : spi(w, a!)
        const high = b === undefined ? low : b === '' ? 0xffffffff : spi(w, b)
        if (more !== undefined || low > high) w.fail(`'${text}' is no range of SPIs`)
        d.splice(0, 3, low | 0, high | 0, inverted ? 1 : 0)
      },
    },
    save: d => {
      const [low, high] = [d[0]! >>> 0, d[1]! >>> 0]
      if (low === 0 && high === 0xffffffff) return d[2] === 0 ? '' : ` ! ${option} 0:4294967295`
      return ` ${bang(d[2] !== 0)}${option} ${low === high ? low : `${low}:${high}`}`
    },
  }
}

const dscp = (n: number, inverted: boolean): number => n | (inverted ? 256 : 0)
const ecn_flag =
  (op: number): Option =>
  (_w, d, inverted) => {
    d[0]! |= op | (inverted ? op << 8 : 0)
  }

export const HEADER_MATCHES: Record<string, ExtensionSpec> = {
  dscp: {
    words: [0],
    options: {
      '--dscp': (w, d, inverted) => {
        d[0] = dscp(number(w, 'the code point', 63), inverted)
      },
      '--dscp-class': (w, d, inverted) => {
        d[0] = dscp(dscp_class(w), inverted)
      },
    },
    save: d => ` ${bang(d[0]! >> 8 !== 0)}--dscp ${hex(d[0]! & 255, 2)}`,
  },
  ecn: {
    words: [0],
    bare: ['--ecn-tcp-cwr', '--ecn-tcp-ece'],
    options: {
      '--ecn-tcp-cwr': ecn_flag(CWR),
      '--ecn-tcp-ece': ecn_flag(ECE),
      '--ecn-ip-ect': (w, d, inverted) => {
        d[0]! |= IP | (inverted ? IP << 8 : 0) | (number(w, 'the ECN field', 3) << 16)
      },
    },
    save: d =>
      [[ECE, '--ecn-tcp-ece'] as const, [CWR, '--ecn-tcp-cwr'] as const, [IP, `--ecn-ip-ect ${d[0]! >> 16}`] as const]
        .filter(([op]) => (d[0]! & op) !== 0)
        .map(([op, text]) => ` ${bang(((d[0]! >> 8) & op) !== 0)}${text}`)
        .join(''),
  },
  ah: spis('--ahspi'),
  esp: spis('--espspi'),
  tcpmss: {
    words: [0, 0],
    options: {
      '--mss': (w, d, inverted) => {
        d.splice(0, 2, range(w, 'the segment size'), inverted ? 1 : 0)
      },
    },
    save: d => ` ${bang(d[1] !== 0)}--mss ${span(d[0]!)}`,
  },
}

const CLAMP_PMTU = 0xffff
/** Of what is set: operation, and where its value lies. */
const ecn_value =
  (op: number, shift: number, max: number): Option =>
  (w, d) => {
    d[0]! |= op | (number(w, 'the value', max) << shift)
  }

export const HEADER_TARGETS: Record<string, ExtensionSpec> = {
  DSCP: {
    words: [0],
    options: {
      '--set-dscp': (w, d) => {
        d[0] = number(w, 'the code point', 63)
      },
      '--set-dscp-class': (w, d) => {
        d[0] = dscp_class(w)
      },
    },
    save: d => ` --set-dscp ${hex(d[0]!, 2)}`,
  },
  ECN: {
    words: [0],
    options: {
      '--ecn-tcp-remove': (_w, d) => {
        d[0]! |= ECE | CWR
      },
      '--ecn-tcp-cwr': ecn_value(CWR, 17, 1),
      '--ecn-tcp-ece': ecn_value(ECE, 16, 1),
      '--ecn-ip-ect': ecn_value(IP, 8, 3),
    },
    save: d => {
      const word = d[0]!
      const values = word >> 16
      const ip = (word & IP) === 0 ? '' : ` --ecn-ip-ect ${(word >> 8) & 3}`
      if ((word & (ECE | CWR)) === (ECE | CWR) && values === 0) return ` --ecn-tcp-remove${ip}`
      const ece = (word & ECE) === 0 ? '' : ` --ecn-tcp-ece ${values & 1}`
      const cwr = (word & CWR) === 0 ? '' : ` --ecn-tcp-cwr ${values >> 1}`
      return `${ece}${cwr}${ip}`
    },
  },
  /** Groups by bit, bytes of a packet, packets in a message, 32 bytes of prefix. */
  ULOG: {
    words: [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    alone: true,
    options: {
      '--ulog-nlgroup': (w, d) => {
        d[0] = 1 << (number(w, 'the group', 32, 1) - 1)
      },
      '--ulog-cprange': (w, d) => {
        d[1] = number(w, 'the number of bytes', 0x7fffffff)
      },
      '--ulog-qthreshold': (w, d) => {
        d[2] = number(w, 'the number of packets', 50, 1)
      },
      '--ulog-prefix': (w, d) => {
        const text = w.next('the prefix')
        if (text.length > 31) w.fail(`the prefix '${text}' is longer than 31 characters`)
        d.splice(3, 8, ...text_words(text, 8))
      },
    },
    save: d => {
      const prefix = words_text(d.slice(3))
      const parts = [
        prefix === '' ? '' : ` --ulog-prefix "${prefix.replace(/(["\\])/g, '\\$1')}"`,
        d[0] === 1 ? '' : ` --ulog-nlgroup ${32 - Math.clz32(d[0]!)}`,
        d[1] === 0 ? '' : ` --ulog-cprange ${d[1]}`,
        d[2] === 1 ? '' : ` --ulog-qthreshold ${d[2]}`,
      ]
      return parts.join('')
    },
  },
  TCPMSS: {
    words: [0],
    options: {
      '--set-mss': (w, d) => {
        d[0] = number(w, 'the segment size', CLAMP_PMTU - 1)
      },
      '--clamp-mss-to-pmtu': (_w, d) => {
        d[0] = CLAMP_PMTU
      },
    },
    save: d => (d[0] === CLAMP_PMTU ? ' --clamp-mss-to-pmtu' : ` --set-mss ${d[0]}`),
  },
  CLASSIFY: {
    words: [0],
    options: {
      '--set-class': (w, d) => {
        const text = w.next('the class')
        const m = /^([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4})$/.exec(text)
        if (m === null) return w.fail(`'${text}' is no class such as 1:10`)
        d[0] = (Number.parseInt(m[1]!, 16) << 16) | Number.parseInt(m[2]!, 16)
      },
    },
    save: d => ` --set-class ${(d[0]! >>> 16).toString(16)}:${(d[0]! & 0xffff).toString(16)}`,
  },
}
