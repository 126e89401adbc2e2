/** ip_xfrm.ts - `ip xfrm state` and `ip xfrm policy`: IPsec by NETLINK_XFRM, in the syntax and the words of iproute2. */

import {
  type Args,
  dotted,
  Failure,
  invarg,
  name_of,
  type Output,
  parse_addr,
  parse_prefix,
  usage,
  value_of,
} from './ip_util.js'
import type { Libc } from './libc.js'
import {
  addr,
  attr,
  attrs,
  get16,
  get32,
  getText,
  type Message,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
  rtnl_change,
  rtnl_close,
  rtnl_dump,
  rtnl_open,
  rtnl_talk,
  u16,
  u32,
} from './libnetlink.js'
import { strerror } from './stdio.js'

type Command = Generator<void, void, void>
const AF_INET = 2
const NETLINK_XFRM = 6
const MSG = { NEWSA: 16, DELSA: 17, GETSA: 18, NEWPOLICY: 19, DELPOLICY: 20, GETPOLICY: 21, ALLOCSPI: 22 } as const
const [UPDPOLICY, UPDSA, FLUSHSA, FLUSHPOLICY] = [25, 26, 28, 29]
const PROTOS = { esp: 50, ah: 51, comp: 108 }
const MODES = { transport: 0, tunnel: 1 }
const LEVELS = { required: 0, use: 1 }
const DIRS = { in: 0, out: 1, fwd: 2 }
const ACTIONS = { allow: 0, block: 1 }
const UPPER = { tcp: 6, udp: 17, icmp: 1, esp: 50, ah: 51 }
const LIMITS = ['byte-soft', 'byte-hard', 'packet-soft', 'packet-hard']
const TIMES = ['time-soft', 'time-hard', 'time-use-soft', 'time-use-hard']
const INF = [255, 255, 255, 255, 255, 255, 255, 255]

const zeros = (n: number): number[] => new Array<number>(n).fill(0)
const address = (a: number): number[] => [...addr(a), ...zeros(12)]
const be16 = (n: number): number[] => [n >> 8, n & 255]

// ---- what is said on the command line -------------------------------------------------------------------------------

interface Id {
  dst: number
  src: number
  spi: number
  proto: number
}
/** ID: src ADDR dst ADDR proto PROTO spi SPI, in any order. @returns whether the next word was of it */
function take_id(args: Args, id: Id): boolean {
  if (args.word('src')) id.src = parse_addr(args.next())
  else if (args.word('dst')) id.dst = parse_addr(args.next())
  else if (args.word('proto')) id.proto = value_of(PROTOS, args.next(), 'XFRM-PROTO')
  else if (args.word('spi')) id.spi = args.number()
  else return false
  return true
}
const xfrm_id = (id: Id): number[] => [...address(id.dst), ...addr(id.spi), id.proto, 0, 0, 0]

/** SELECTOR, as struct xfrm_selector. */
interface Selector {
  dst: number
  dlen: number
  src: number
  slen: number
  proto: number
  sport: number
  dport: number
}
const no_selector = (): Selector => ({ dst: 0, dlen: 0, src: 0, slen: 0, proto: 0, sport: -1, dport: -1 })
function take_selector(args: Args, s: Selector): boolean {
  if (args.word('src')) {
    const p = parse_prefix(args.next())
    s.src = p.addr
    s.slen = p.len
  } else if (args.word('dst')) {
    const p = parse_prefix(args.next())
    s.dst = p.addr
    s.dlen = p.len
  } else if (args.word('proto')) s.proto = value_of(UPPER, args.next(), 'PROTO')
  else if (args.word('sport', 'type')) s.sport = args.number(65535)
  else if (args.word('dport', 'code')) s.dport = args.number(65535)
  else return false
  return true
}
function xfrm_selector(s: Selector): number[] {
  const port = (n: number): number[] => (n < 0 ? [0, 0, 0, 0] : [...be16(n), 255, 255])
  const ends = [...address(s.dst), ...address(s.src), ...port(s.dport), ...port(s.sport)]
  return [...ends, ...u16(AF_INET), s.dlen, s.slen, s.proto, 0, 0, 0, ...zeros(8)]
}

/** LIMIT: byte-soft N, time-hard N, and so on, into the 8 numbers of struct xfrm_lifetime_cfg. */
function take_limit(args: Args, limits: number[]): boolean {
  if (!args.word('limit')) return false
  const what = args.next()
  const k = [...LIMITS, ...TIMES].indexOf(what)
  if (k < 0) invarg('invalid LIMIT', what)
  limits[k] = args.number(2 ** 52)
  return true
}
const no_limits = (): number[] => [-1, -1, -1, -1, 0, 0, 0, 0]
const u64 = (n: number): number[] => (n < 0 ? INF : [...u32((n % 4294967296) | 0), ...u32(Math.floor(n / 4294967296))])
const lifetimes = (limits: number[]): number[] => limits.flatMap(u64)

/** A key as bytes: 0x and hex digits, or the text itself. */
function key_bytes(textual: string): number[] {
  if (textual === '') return []
  if (!/^0x/i.test(textual)) return Array.from(textual, c => c.charCodeAt(0))
  if (!/^0x([0-9a-f]{2})*$/i.test(textual)) invarg('ALGO-KEY value is invalid', textual)
  return (textual.slice(2).match(/../g) ?? []).map(b => Number.parseInt(b, 16))
}
const ALGOS = { auth: 1, enc: 2, comp: 3 } as const
/** ALGO: auth NAME KEY, enc NAME KEY, comp NAME. */
function take_algo(args: Args, out: number[]): boolean {
  const word = (['auth', 'enc', 'comp'] as const).find(w => args.word(w))
  if (word === undefined) return false
  const type = ALGOS[word]
  const name = args.next()
  const key = word === 'comp' ? [] : key_bytes(args.next())
  const padded = [...Array.from(name, c => c.charCodeAt(0)), ...zeros(64)].slice(0, 64)
  out.push(...attr(type, [...padded, ...u32(key.length * 8), ...key]))
  return true
}

/** TMPL: as struct xfrm_user_tmpl. */
function take_tmpl(args: Args): number[] {
  const id: Id = { dst: 0, src: 0, spi: 0, proto: 0 }
  let [reqid, mode, optional] = [0, 0, 0]
  for (;;) {
    if (take_id(args, id)) continue
    if (args.word('mode')) mode = value_of(MODES, args.next(), 'MODE')
    else if (args.word('reqid')) reqid = args.number()
    else if (args.word('level')) optional = value_of(LEVELS, args.next(), 'LEVEL')
    else break
  }
  if (id.proto === 0) usage('Missing "proto" of a template.')
  const head = [...xfrm_id(id), ...u16(AF_INET), 0, 0, ...address(id.src), ...u32(reqid), mode, 0, optional, 0]
  return [...head, ...u32(-1), ...u32(-1), ...u32(-1)]
}

function unknown(args: Args): never {
  throw new Failure(`Error: argument "${args.next()}" is wrong: unknown`, 255)
}
function* talk(nl: Netlink, type: number, flags: number, body: number[]): Command {
  const err = yield* rtnl_change(nl, type, flags, body)
  if (err !== 0) throw new Failure(`RTNETLINK answers: ${strerror(err)}`, 2)
}

// ---- what is printed ------------------------------------------------------------------------------------------------

const hex = (n: number, width = 8): string => `0x${(n >>> 0).toString(16).padStart(width, '0')}`
const big = (b: Uint8Array, at: number): string =>
  b.subarray(at, at + 8).every(x => x === 255)
    ? '(INF)'
    : String((get32(b, at) >>> 0) + (get32(b, at + 4) >>> 0) * 4294967296)
const spi_of = (b: Uint8Array, at: number): number =>
  (b[at]! << 24) | (b[at + 1]! << 16) | (b[at + 2]! << 8) | b[at + 3]!

function selector_text(b: Uint8Array, at: number): string {
  const port = (k: number): number => (b[at + k]! << 8) | b[at + k + 1]!
  let line = `src ${dotted(b.subarray(at + 16, at + 20))}/${b[at + 43]} dst ${dotted(b.subarray(at, at + 4))}/${b[at + 42]} `
  if (b[at + 44] !== 0) line += `proto ${name_of(UPPER, b[at + 44]!)} `
  if (port(38) !== 0) line += `sport ${port(36)} `
  if (port(34) !== 0) line += `dport ${port(32)} `
  return line
}
function lifetimes_text(b: Uint8Array, at: number): string {
  const time = (k: number): string => (big(b, at + k) === '0' ? '0(sec)' : `${big(b, at + k)}(sec)`)
  return (
    `\tlifetime config:\n` +
    `\t  limit: soft ${big(b, at)}(bytes), hard ${big(b, at + 8)}(bytes)\n` +
    `\t  limit: soft ${big(b, at + 16)}(packets), hard ${big(b, at + 24)}(packets)\n` +
    `\t  expire add: soft ${time(32)}, hard ${time(40)}\n\t  expire use: soft ${time(48)}, hard ${time(56)}\n` +
    `\tlifetime current:\n\t  ${big(b, at + 64)}(bytes), ${big(b, at + 72)}(packets)\n`
  ).replaceAll('(INF)(', '(INF)(')
}
/** xfrm_state_print */
function state_text(m: Message, stats: boolean): string {
  const b = m.body
  const t = attrs(b, 220)
  let text = `src ${dotted(b.subarray(80, 84))} dst ${dotted(b.subarray(56, 60))}\n`
  text += `\tproto ${name_of(PROTOS, b[76]!)} spi ${hex(spi_of(b, 72))} reqid ${get32(b, 208) >>> 0} mode ${name_of(MODES, b[214]!)}\n`
  text += `\treplay-window ${b[215]} \n`
  for (const [word, type] of Object.entries(ALGOS)) {
    const algo = t.get(type)
    if (algo === undefined) continue
    const key = [...algo.subarray(68)].map(k => k.toString(16).padStart(2, '0')).join('')
    text += `\t${word} ${getText(algo.subarray(0, 64))} ${key !== '' ? `0x${key}` : word === 'comp' ? '' : '""'}\n`
  }
  text += `\tsel ${selector_text(b, 0)}\n`
  if (!stats) return text
  return (
    text +
    lifetimes_text(b, 96) +
    `\tstats:\n\t  replay-window ${get32(b, 192)} replay ${get32(b, 196)} failed ${get32(b, 200)}\n`
  )
}
/** xfrm_policy_print */
function policy_text(m: Message, stats: boolean): string {
  const b = m.body
  let text = `${selector_text(b, 0)}\n\tdir ${name_of(DIRS, b[160]!)} ${b[161] === 0 ? '' : 'action block '}`
  text += `priority ${get32(b, 152) >>> 0} \n`
  if (stats) text += lifetimes_text(b, 56)
  const tmpls = attrs(b, 164).get(5) ?? new Uint8Array(0)
  for (let at = 0; at + 64 <= tmpls.length; at += 64) {
    const t = tmpls.subarray(at, at + 64)
    text += `\ttmpl src ${dotted(t.subarray(28, 32))} dst ${dotted(t.subarray(0, 4))}\n\t\tproto ${name_of(PROTOS, t[20]!)} `
    if (spi_of(t, 16) !== 0) text += `spi ${hex(spi_of(t, 16))} `
    text += `reqid ${get32(t, 44) >>> 0} mode ${name_of(MODES, t[48]!)}${t[50] === 0 ? '' : ' level use'}\n`
  }
  return text
}

// ---- ip xfrm state --------------------------------------------------------------------------------------------------

function* state_modify(nl: Netlink, args: Args, io: Output, type: number): Command {
  const id: Id = { dst: 0, src: 0, spi: 0, proto: 0 }
  const limits = no_limits()
  const algos: number[] = []
  let sel = no_selector()
  let [reqid, mode, window, seq, flags, min, max] = [0, 0, 0, 0, 0, 0x100, -1]
  while (!args.done) {
    if (take_id(args, id) || take_algo(args, algos) || take_limit(args, limits)) continue
    if (args.word('mode')) mode = value_of(MODES, args.next(), 'MODE')
    else if (args.word('reqid')) reqid = args.number()
    else if (args.word('seq')) seq = args.number()
    else if (args.word('replay-window')) window = args.number(255)
    else if (args.word('flag')) flags = value_of({ noecn: 1 }, args.next(), 'FLAG')
    else if (args.word('min')) min = args.number()
    else if (args.word('max')) max = args.number()
    else if (args.word('sel')) {
      sel = no_selector()
      while (!args.done && take_selector(args, sel));
    } else unknown(args)
  }
  if (id.proto === 0 || id.dst === 0) usage('Missing ID: "src ADDR dst ADDR proto PROTO spi SPI".')
  const body = [...xfrm_selector(sel), ...xfrm_id(id), ...address(id.src), ...lifetimes(limits), ...zeros(32 + 12)]
  body.push(...u32(seq), ...u32(reqid), ...u16(AF_INET), mode, window, flags, 0, 0, 0)
  if (type !== MSG.ALLOCSPI) return yield* talk(nl, type, NLM_F_CREATE | NLM_F_EXCL, [...body, ...algos])
  const last = max >= 0 ? max : id.proto === PROTOS.comp ? 0xffff : 0xffffffff
  const m = yield* rtnl_talk(nl, type, 0, [...body, ...u32(min), ...u32(last)])
  if (typeof m === 'number') throw new Failure(`RTNETLINK answers: ${strerror(m)}`, 2)
  yield* io.out(state_text(m, false))
}

function* state_named(nl: Netlink, args: Args, io: Output, type: number, stats: boolean): Command {
  const id: Id = { dst: 0, src: 0, spi: 0, proto: 0 }
  while (!args.done) if (!take_id(args, id)) unknown(args)
  const body = [...address(id.dst), ...addr(id.spi), ...u16(AF_INET), id.proto, 0]
  if (type === MSG.DELSA) return yield* talk(nl, type, 0, body)
  const m = yield* rtnl_talk(nl, type, 0, body)
  if (typeof m === 'number') throw new Failure(`RTNETLINK answers: ${strerror(m)}`, 2)
  yield* io.out(state_text(m, stats))
}

function* list(nl: Netlink, io: Output, type: number, print: (m: Message) => string): Command {
  const all = yield* rtnl_dump(nl, type, [AF_INET, ...zeros(23)])
  if (typeof all === 'number') throw new Failure(`RTNETLINK answers: ${strerror(all)}`, 2)
  for (const m of all) yield* io.out(print(m))
}

function* ip_xfrm_state(nl: Netlink, args: Args, io: Output, stats: boolean): Command {
  if (args.word('add')) return yield* state_modify(nl, args, io, MSG.NEWSA)
  if (args.word('update')) return yield* state_modify(nl, args, io, UPDSA)
  if (args.word('allocspi')) return yield* state_modify(nl, args, io, MSG.ALLOCSPI)
  if (args.take('delete', 'del')) return yield* state_named(nl, args, io, MSG.DELSA, stats)
  if (args.take('get')) return yield* state_named(nl, args, io, MSG.GETSA, stats)
  if (args.done || args.take('list', 'show', 'lst', 'ls'))
    return yield* list(nl, io, MSG.GETSA, m => state_text(m, stats))
  if (args.take('flush')) {
    const proto = args.word('proto') ? value_of(PROTOS, args.next(), 'XFRM-PROTO') : 0
    return yield* talk(nl, FLUSHSA, 0, [proto, 0, 0, 0])
  }
  usage(`Command "${args.next()}" is unknown, try "ip xfrm state help".`)
}

// ---- ip xfrm policy -------------------------------------------------------------------------------------------------

function* policy_modify(nl: Netlink, args: Args, type: number): Command {
  const sel = no_selector()
  const limits = no_limits()
  const tmpls: number[] = []
  let [dir, priority, action] = [-1, 0, 0]
  while (!args.done) {
    if (take_selector(args, sel) || take_limit(args, limits)) continue
    if (args.word('dir')) dir = value_of(DIRS, args.next(), 'DIR')
    else if (args.word('priority')) priority = args.number()
    else if (args.word('action')) action = value_of(ACTIONS, args.next(), 'ACTION')
    else if (args.word('tmpl')) tmpls.push(...take_tmpl(args))
    else unknown(args)
  }
  if (dir < 0) usage('Not enough information: "DIR" is required.')
  const head = [
    ...xfrm_selector(sel),
    ...lifetimes(limits),
    ...zeros(32),
    ...u32(priority),
    ...u32(0),
    dir,
    action,
    0,
    0,
  ]
  yield* talk(nl, type, NLM_F_CREATE | NLM_F_EXCL, [...head, ...(tmpls.length === 0 ? [] : attr(5, tmpls))])
}

function* policy_named(nl: Netlink, args: Args, io: Output, type: number, stats: boolean): Command {
  const sel = no_selector()
  let [dir, index] = [-1, 0]
  while (!args.done) {
    if (take_selector(args, sel)) continue
    if (args.word('dir')) dir = value_of(DIRS, args.next(), 'DIR')
    else if (args.word('index')) index = args.number()
    else unknown(args)
  }
  if (dir < 0) usage('Not enough information: "DIR" is required.')
  const body = [...xfrm_selector(sel), ...u32(index), dir, 0, 0, 0]
  if (type === MSG.DELPOLICY) return yield* talk(nl, type, 0, body)
  const m = yield* rtnl_talk(nl, type, 0, body)
  if (typeof m === 'number') throw new Failure(`RTNETLINK answers: ${strerror(m)}`, 2)
  yield* io.out(policy_text(m, stats))
}

function* ip_xfrm_policy(nl: Netlink, args: Args, io: Output, stats: boolean): Command {
  if (args.word('add')) return yield* policy_modify(nl, args, MSG.NEWPOLICY)
  if (args.word('update')) return yield* policy_modify(nl, args, UPDPOLICY)
  if (args.take('delete', 'del')) return yield* policy_named(nl, args, io, MSG.DELPOLICY, stats)
  if (args.take('get')) return yield* policy_named(nl, args, io, MSG.GETPOLICY, stats)
  if (args.done || args.take('list', 'show', 'lst', 'ls'))
    return yield* list(nl, io, MSG.GETPOLICY, m => policy_text(m, stats))
  if (args.take('flush')) return yield* talk(nl, FLUSHPOLICY, 0, [])
  usage(`Command "${args.next()}" is unknown, try "ip xfrm policy help".`)
}

// ---- ip xfrm --------------------------------------------------------------------------------------------------------

/** What the kernel says of itself: states to be negotiated, and ends of states and policies. @returns never, unless the socket fails */
function monitor_text(m: Message): string {
  const b = m.body
  if (m.type === 23)
    return `acquire proto ${name_of(PROTOS, b[20]!)} src ${dotted(b.subarray(24, 28))} dst ${dotted(b.subarray(0, 4))}\n  sel ${selector_text(b, 40)}\n`
  if (m.type === 24)
    return `expired src ${dotted(b.subarray(80, 84))} dst ${dotted(b.subarray(56, 60))} spi ${hex(spi_of(b, 72))} hard ${b[220]}\n`
  return m.type === 27
    ? `policy expired ${selector_text(b, 0)}hard ${b[164]}\n`
    : `message ${m.type} of ${get16(b, 0)}\n`
}

export { monitor_text as xfrm_event_text }

/** do_xfrm - with a socket of its own, of NETLINK_XFRM. */
export function* ip_xfrm(args: Args, io: Output, stats: boolean): Command {
  const nl = yield* rtnl_open(0, NETLINK_XFRM)
  if (typeof nl === 'number') throw new Failure(`Cannot open netlink socket: ${strerror(nl)}`, 1)
  try {
    if (args.take('state')) yield* ip_xfrm_state(nl, args, io, stats)
    else if (args.take('policy')) yield* ip_xfrm_policy(nl, args, io, stats)
    else
      usage(
        args.done
          ? 'Usage: ip xfrm { state | policy } { COMMAND | help }'
          : `Object "${args.next()}" is unknown, try "ip xfrm help".`,
      )
  } finally {
    yield* rtnl_close(nl) as Libc
  }
}
