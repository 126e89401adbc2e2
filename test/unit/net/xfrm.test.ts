/** IPsec of a host whose peer is a model by other ciphers: what is right goes through, everything else is counted and freed. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { describe, expect, test } from 'vitest'
import { EPERM } from '../../../src/lib/errno.js'
import { find_sysctl, sysctl_write } from '../../../src/net/core/sysctl.js'
import { aes_cbc_decrypt, aes_cbc_encrypt, hmac_digest } from '../../../src/net/xfrm/crypto.js'
import { xfrm_replay_advance, xfrm_replay_check } from '../../../src/net/xfrm/xfrm_replay.js'
import { xfrm_state_all, xfrm_state_put } from '../../../src/net/xfrm/xfrm_state.js'
import { counting, icmp, icmpFrame, ipFrame, parse, udpFrame } from '../../helpers/frames.js'
import {
  type Association,
  ahFrame,
  esp,
  espFrame,
  ip,
  operator,
  ROUTER_OF_IPSEC,
  state,
  unwrap,
} from '../../helpers/ipsec.js'
import { conserved, Script } from '../../helpers/script.js'

const s = new Script(ROUTER_OF_IPSEC)
const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex')
const [AUTH, ENC] = [Buffer.from(counting(20)), Buffer.from(counting(16))]
const IN: Association = { src: '10.0.0.2', dst: '10.0.0.1', spi: 0x100, auth: AUTH, enc: ENC }
const OUT: Association = { src: '10.0.0.1', dst: '10.0.0.2', spi: 0x200, auth: AUTH, enc: ENC }
const { good, refused, flush: clean } = operator(s)
const PING = icmp(8, 0, 7, counting(40))
/** What becomes of one frame: the one thing that is counted. */
const fate = (frame: Uint8Array): string => {
  const f = s.account(() => s.send(0, frame))
  expect(f.received).toBe(1)
  return Object.keys(f.drops)[0] ?? (f.delivered === 1 ? 'delivered' : 'forwarded')
}

describe('vectors of others', () => {
  test('AES-CBC, RFC 3602 section 4', () => {
    const [key, iv] = [bytes('06a9214036b8a15b512e03d534120006'), bytes('3dafba429d9eb430b422da802c9fac41')]
    const text = Buffer.from('Single block msg')
    expect(Buffer.from(aes_cbc_encrypt(key, iv, text)).toString('hex')).toBe('e353779c1079aeb82708942dbe77181a')
    const [key2, iv2] = [bytes('c286696d887c9aa0611bbb3e2025a45a'), bytes('562e17996d093d28ddb3ba695a2e6f58')]
    const two = bytes('d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1')
    expect(Buffer.from(aes_cbc_encrypt(key2, iv2, Buffer.from(counting(32))))).toEqual(two)
    expect([...aes_cbc_decrypt(key2, iv2, two)]).toEqual([...counting(32)])
  })
  test('HMAC, RFC 2202 and RFC 4231', () => {
    const hex = (...a: Parameters<typeof hmac_digest>): string => Buffer.from(hmac_digest(...a)).toString('hex')
    const [what, jefe] = [Buffer.from('what do ya want for nothing?'), Buffer.from('Jefe')]
    expect(hex('md5', jefe, what)).toBe('750c783e6ab0b503eaa86e310a5db738')
    expect(hex('sha1', jefe, what)).toBe('effcdf6ae5eb2fa2d27416d5f184df9c259a7c79')
    expect(hex('md5', Buffer.alloc(16, 0x0b), Buffer.from('Hi There'))).toBe('9294727a3638bb1c13f48ef8158bfc9d')
    expect(hex('sha1', Buffer.alloc(20, 0x0b), Buffer.from('Hi There'))).toBe(
      'b617318655057264e28bc0b6fb378c8ef146be00',
    )
    expect(hex('sha256', Buffer.alloc(20, 0x0b), Buffer.from('Hi There'))).toBe(
      'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7',
    )
  })
  test('a whole packet of ESP, RFC 3602 case 5: the ping in it is answered', () => {
    good('addr add 192.168.123.100/24 dev eth0')
    good('neigh add 192.168.123.3 lladdr 02:00:00:00:01:02 dev eth0')
    good(
      'xfrm state add src 192.168.123.3 dst 192.168.123.100 proto esp spi 0x4321 enc aes 0x90d382b410eeba7ad938c46cec1a82bf',
    )
    const text = bytes(
      `f663c25d 325c18c6 a9453e19 4e120849 a4870b66 cc6b9965 330013b4 898dc856 a4699e52 3a55db08
      0b59ec3a 8e4b7e52 775b07d1 db34ed9c 538ab50c 551b874a a269add0 47ad2d59 13ac19b7 cfbad4a6`.replaceAll(/\s/g, ''),
    )
    const packet = Buffer.concat([bytes('00004321 00000001 e96e8c08 ab465763 fd098d45 dd3ff893'), text])
    const [back] = s.send(0, ipFrame(packet, { src: '192.168.123.3', dst: '192.168.123.100', protocol: 50 }))[0]!
    const { icmp: reply } = parse(back!)
    expect(reply).toMatchObject({ type: 0, info: 0xa70a0000, checksumGood: true })
    expect([...reply!.data.subarray(8)]).toEqual([...counting(0x38)].slice(8))
    clean()
  })
})

describe('what the kernel refuses', () => {
  test('states', () => {
    good(state(IN))
    expect(refused(state(IN))).toBe('File exists')
    expect(refused('xfrm state del src 10.0.0.2 dst 10.0.0.1 proto esp spi 0x999')).toBe('No such process')
    expect(refused('xfrm state get src 10.0.0.2 dst 10.0.0.1 proto ah spi 0x100')).toBe('No such process')
    expect(refused('xfrm state add src 10.0.0.2 dst 10.0.0.1 proto esp spi 2 enc des3_ede 0x00')).toBe(
      'Function not implemented',
    )
    expect(refused('xfrm state add src 10.0.0.2 dst 10.0.0.1 proto esp spi 2 enc aes 0x0011')).toBe('Invalid argument')
    expect(refused('xfrm state add src 10.0.0.2 dst 10.0.0.1 proto esp spi 2 auth sha1 0x0011')).toBe(
      'Invalid argument',
    )
    expect(refused('xfrm state add src 10.0.0.2 dst 10.0.0.1 proto ah spi 2 enc aes 0x0011')).toBe('Invalid argument')
    expect(refused('xfrm state add src 10.0.0.2 dst 10.0.0.1 proto comp spi 2')).toBe('Invalid argument')
    clean()
  })
  test('policies, and who is not root', () => {
    const policy = 'src 10.0.0.1 dst 10.0.0.2 dir out'
    good(`xfrm policy add ${policy} priority 7 tmpl proto esp`)
    expect(refused(`xfrm policy add ${policy} tmpl proto esp`)).toBe('File exists')
    good(`xfrm policy update ${policy} action block`)
    expect(ip(s, 'xfrm policy list')[1]).toMatch(
      /^src 10\.0\.0\.1\/32 dst 10\.0\.0\.2\/32 \n\tdir out action block priority 0/,
    )
    good(`xfrm policy del ${policy}`)
    expect(refused(`xfrm policy del ${policy}`)).toBe('No such file or directory')
    expect(ip(s, 'xfrm state list', 1000)[2]).toMatch('Operation not permitted')
    expect(refused(`xfrm policy add ${policy}${' tmpl proto esp'.repeat(5)}`)).toBe('Invalid argument')
  })
})

describe('transport mode', () => {
  test.each([
    ['sha1', 20, ENC],
    ['md5', 16, Buffer.from(counting(32))],
    ['sha256', 32, undefined],
  ] as const)('%s, a key of %i bytes: a ping and its answer', (hash, keylen, enc) => {
    const auth = Buffer.from(counting(keylen))
    const [a, b] = [IN, OUT].map(x => ({ src: x.src, dst: x.dst, spi: x.spi, hash, auth, ...(enc && { enc }) })) as [
      Association,
      Association,
    ]
    good(state(a, 'reqid 5 replay-window 32'))
    good(state(b, 'reqid 5'))
    good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto esp reqid 5')
    good('xfrm policy add src 10.0.0.2 dst 10.0.0.1 dir in tmpl proto esp reqid 5')
    const ivs = new Set<string>()
    for (let seq = 1; seq <= 3; seq++) {
      const [back] = s.send(0, espFrame(a, seq, PING, 1))[0]!
      const inner = unwrap(b, back!)
      ivs.add(inner.iv)
      expect(inner).toMatchObject({ seq, next: 1, payload: Buffer.from(icmp(0, 0, 7, counting(40))) })
    }
    expect(ivs.size).toBe(enc === undefined ? 1 : 3)
    expect(fate(icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8))).toBe('xfrm_policy') // in clear it may not come
    expect(fate(udpFrame({ src: '10.0.0.2', dst: '10.0.0.1', dport: 9 }))).toBe('xfrm_policy')
    expect(fate(icmpFrame({ src: '10.0.0.3', dst: '10.0.0.1' }, 8))).toBe('delivered') // another host may
    clean()
  })

  test('what is not sound is counted and freed', () => {
    good(state(IN, 'replay-window 32'))
    const frame = (payload: Uint8Array): Uint8Array =>
      ipFrame(payload, { src: '10.0.0.2', dst: '10.0.0.1', protocol: 50 })
    const sound = esp(IN, 9, PING, 1)
    expect(fate(frame(esp({ ...IN, auth: Buffer.alloc(20, 1) }, 1, PING, 1)))).toBe('xfrm_integrity')
    for (let at = 0; at < sound.length; at += 7) {
      const bad = Buffer.from(sound)
      bad[at]! ^= 0x10
      expect(fate(frame(bad))).toBe(at < 4 ? 'xfrm_no_state' : 'xfrm_integrity')
    }
    for (const len of [0, 3, 7]) expect(fate(frame(sound.subarray(0, len)))).toBe('xfrm_malformed')
    for (const len of [8, 12, 23, 35, 36, 50]) expect(fate(frame(sound.subarray(0, len)))).toBe('xfrm_malformed')
    expect(fate(frame(esp(IN, 2, PING, 1, 200)))).toBe('xfrm_malformed') // more padding than there is packet
    expect(fate(frame(esp({ ...IN, spi: 0x999 }, 1, PING, 1)))).toBe('xfrm_no_state')
    expect(fate(frame(sound))).toBe('delivered')
    expect(fate(frame(sound))).toBe('xfrm_replay')
    expect(fate(frame(esp(IN, 8, PING, 1)))).toBe('delivered') // late, but new
    expect(fate(frame(esp(IN, 0, PING, 1)))).toBe('xfrm_replay')
    expect(fate(frame(esp(IN, 100, PING, 1)))).toBe('delivered')
    expect(fate(frame(esp(IN, 68, PING, 1)))).toBe('xfrm_replay') // behind the window
    expect(fate(frame(esp(IN, 69, PING, 1)))).toBe('delivered')
    expect(ip(s, '-s xfrm state list')[1]).toMatch(/replay-window 1 replay 1 failed \d\d/)
    good(`xfrm state del src 10.0.0.2 dst 10.0.0.1 proto esp spi 0x100`)
    expect(fate(frame(esp(IN, 101, PING, 1)))).toBe('xfrm_no_state')
  })

  test('a packet of the largest number of states, and one more', () => {
    for (let spi = 1; spi <= 5; spi++) good(state({ ...IN, spi }))
    const nested = (n: number): Uint8Array => {
      let [payload, next]: [Uint8Array, number] = [PING, 1]
      for (let spi = n; spi >= 1; spi--, next = 50) payload = esp({ ...IN, spi }, 1, payload, next)
      return ipFrame(payload, { src: IN.src, dst: IN.dst, protocol: 50 })
    }
    expect(fate(nested(4))).toBe('delivered')
    expect(fate(nested(5))).toBe('xfrm_malformed')
    clean()
  })
})

test('AH: a sound packet, one with options, and each part that is covered', () => {
  good(
    `xfrm state add src 10.0.0.2 dst 10.0.0.1 proto ah spi 0x300 replay-window 32 auth sha1 0x${AUTH.toString('hex')}`,
  )
  good(`xfrm state add src 10.0.0.1 dst 10.0.0.2 proto ah spi 0x301 auth sha1 0x${AUTH.toString('hex')}`)
  good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto ah')
  const a = { ...IN, spi: 0x300 }
  const [back] = s.send(0, ahFrame(a, 1, PING, 1))[0]!
  const p = parse(back!)
  expect([p.protocol, p.payload[0], p.ipChecksumGood]).toEqual([51, 1, true])
  const again = ahFrame({ ...OUT, spi: 0x301 }, 1, p.payload.subarray(24), 1, [], p.id)
  expect([...parse(again).payload]).toEqual([...p.payload]) // the peer gets the same digest
  expect(fate(ahFrame(a, 2, PING, 1, [7, 7, 4, 0, 0, 0, 0]))).toBe('delivered')
  const sound = ahFrame(a, 3, PING, 1)
  for (const [at, what] of [
    [34 + 4, 'xfrm_no_state'],
    [34 + 1, 'xfrm_malformed'],
    [34 + 12, 'xfrm_integrity'],
    [34 + 30, 'xfrm_integrity'],
  ] as const) {
    const bad = Uint8Array.from(sound)
    bad[at]! ^= 1
    expect(fate(bad)).toBe(what)
  }
  expect(fate(sound)).toBe('delivered')
  clean()
})

describe('tunnel mode', () => {
  const tunnel = { src: '10.0.0.1', dst: '10.0.0.3', spi: 0x400, auth: AUTH, enc: ENC }
  const back = { src: '10.0.0.3', dst: '10.0.0.1', spi: 0x401, auth: AUTH, enc: ENC }
  const lay = (): void => {
    good(state(tunnel, 'mode tunnel reqid 1'))
    good(state(back, 'mode tunnel reqid 1'))
    good('xfrm policy add dst 10.9.0.0/16 dir out tmpl src 10.0.0.1 dst 10.0.0.3 proto esp reqid 1 mode tunnel')
    good('route add 10.9.0.0/16 via 10.0.0.2')
  }
  test('forwarded packets go in; those that do not fit are not, and the sender hears how much does', () => {
    lay()
    const to = '02:00:00:00:00:02'
    const df = (len: number): Uint8Array => udpFrame({ src: '10.0.1.2', dst: '10.9.0.9', df: true, to }, counting(len))
    const [out] = s.send(1, df(1400))[0]!
    expect(parse(out!)).toMatchObject({ src: '10.0.0.1', dst: '10.0.0.3', df: true })
    const inner = unwrap(tunnel, out!)
    expect([inner.next, inner.payload.length, inner.payload[8]]).toEqual([4, 1428, 63])
    const error = parse(s.send(1, df(1440))[1]![0]!)
    expect(error.icmp).toMatchObject({ type: 3, code: 4, info: 1438 })
    const fits = s.send(1, df(1438 - 28))[0]!
    expect([fits.length, parse(fits[0]!).payload.length + 20]).toEqual([1, 1496])
    expect(s.send(1, df(1439 - 28))[0]).toEqual([])
    good('route del 10.9.0.0/16')
    clean()
  })
  test('the TTL outside is that of the way to the other end', () => {
    lay()
    good('route add 10.0.0.3/32 via 10.0.0.2 hoplimit 9')
    const [out] = s.send(1, udpFrame({ src: '10.0.1.2', dst: '10.9.0.9', to: '02:00:00:00:00:02' }))[0]!
    expect(parse(out!)).toMatchObject({ dst: '10.0.0.3', ttl: 9, ipChecksumGood: true })
    good('route del 10.0.0.3/32')
    good('route del 10.9.0.0/16')
    clean()
  })
  test('what comes out must have come by the policy of its direction', () => {
    lay()
    const packet = (o: { src: string; dst: string }): Uint8Array => udpFrame(o, counting(40)).subarray(14)
    const wrapped = (seq: number): Uint8Array => espFrame(back, seq, packet({ src: '10.9.0.9', dst: '10.0.1.2' }), 4)
    expect(fate(wrapped(1))).toBe('xfrm_policy') // no policy at all: nobody has asked for the tunnel
    good('xfrm policy add src 10.9.0.0/16 dir fwd tmpl src 10.0.0.3 dst 10.0.0.1 proto esp reqid 1 mode tunnel')
    expect(fate(wrapped(2))).toBe('forwarded')
    expect(fate(espFrame(back, 3, counting(40), 17))).toBe('xfrm_mode')
    expect(fate(espFrame(back, 4, counting(40), 4))).toBe('xfrm_mode') // no IPv4 inside
    expect(fate(udpFrame({ src: '10.9.0.9', dst: '10.0.1.2' }))).toBe('xfrm_policy') // in clear
    good('route del 10.9.0.0/16')
    clean()
  })
  test('a policy that blocks', () => {
    good('xfrm policy add src 10.0.1.0/24 dir fwd action block')
    expect(fate(icmpFrame({ src: '10.0.1.2', dst: '10.0.0.2' }, 8))).toBe('xfrm_policy')
    clean()
  })
})

describe('devices that ask for no policy', () => {
  const conf = (name: string, value: number): void => expect(sysctl_write(`net.ipv4.conf.${name}`, value)).toBe(0)
  test('disable_policy: what comes in by it is not looked at', () => {
    good('xfrm policy add src 10.0.0.0/24 dir in action block')
    good('xfrm policy add src 10.0.0.0/24 dir fwd action block')
    const [ping, through] = [
      icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8),
      icmpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, 8),
    ]
    expect([fate(ping), fate(through)]).toEqual(['xfrm_policy', 'xfrm_policy'])
    conf('eth1.disable_policy', 1)
    conf('all.disable_policy', 1)
    expect([fate(ping), fate(through)]).toEqual(['xfrm_policy', 'xfrm_policy'])
    conf('eth0.disable_policy', 1)
    expect([fate(ping), fate(through)]).toEqual(['delivered', 'forwarded'])
    for (const of of ['eth0', 'eth1', 'all']) conf(`${of}.disable_policy`, 0)
    clean()
  })
  test('disable_xfrm: what goes out by it goes as it is', () => {
    good('xfrm policy add dst 10.0.0.0/24 dir out action block')
    const through = (): string[] =>
      s.send(1, icmpFrame({ src: '10.0.1.2', dst: '10.0.0.2', to: '02:00:00:00:00:02' }, 8))[0]!.map(f => parse(f).dst)
    const answers = (): number => s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8))[0]!.length
    expect([through(), answers()]).toEqual([[], 0])
    conf('eth0.disable_xfrm', 1)
    expect([through(), answers()]).toEqual([['10.0.0.2'], 1])
    conf('eth0.disable_xfrm', 0)
    clean()
  })
  test('the loopback is one; tag is kept, mc_forwarding is 0 and stays so', () => {
    const read = (name: string): number => find_sysctl(`net.ipv4.conf.${name}`)!.get()
    expect(['lo', 'eth0'].map(d => [read(`${d}.disable_xfrm`), read(`${d}.disable_policy`)])).toEqual([
      [1, 1],
      [0, 0],
    ])
    conf('eth0.tag', -7)
    expect([read('eth0.tag'), read('eth1.tag'), read('all.mc_forwarding')]).toEqual([-7, 0, 0])
    expect(sysctl_write('net.ipv4.conf.eth0.mc_forwarding', 1)).toBe(-EPERM)
  })
})

describe('limits', () => {
  test('of packets: the hard one ends the state', () => {
    good(state(IN, 'limit packet-hard 2 limit packet-soft 1'))
    expect([1, 2, 3].map(seq => fate(espFrame(IN, seq, PING, 1)))).toEqual([
      'delivered',
      'delivered',
      'xfrm_state_invalid',
    ])
    s.pass(2)
    expect(fate(espFrame(IN, 4, PING, 1))).toBe('xfrm_no_state')
  })
  test('of time: since it was added, since it was used', () => {
    good(state(IN, 'limit time-hard 2'))
    const [used, idle] = [0x101, 0x102].map(spi => ({ ...IN, spi })) as [Association, Association]
    for (const a of [used, idle]) good(state(a, 'limit time-use-hard 1'))
    expect(fate(espFrame(used, 1, PING, 1))).toBe('delivered')
    s.pass(500)
    expect(fate(espFrame(IN, 1, PING, 1))).toBe('delivered')
    s.pass(3500)
    expect(fate(espFrame(IN, 2, PING, 1))).toBe('xfrm_no_state')
    expect(fate(espFrame(used, 2, PING, 1))).toBe('xfrm_no_state')
    expect(fate(espFrame(idle, 1, PING, 1))).toBe('delivered')
    clean()
  })
})

test('the replay window of 32, number by number', () => {
  good(state(IN, 'replay-window 32'))
  const [x] = xfrm_state_all()
  const seen = new Set<number>()
  let highest = 0
  for (let k = 0, seq = 1; k < 3000; k++, seq = 1 + ((seq * 7919 + k) % (40 + (k >> 2)))) {
    const fresh = seq > highest - 32 && !seen.has(seq)
    expect([seq, xfrm_replay_check(x!, seq) === 0]).toEqual([seq, fresh])
    if (!fresh) continue
    xfrm_replay_advance(x!, seq)
    seen.add(seq)
    highest = Math.max(highest, seq)
  }
  xfrm_state_put(x!)
  clean()
})

test('in the end nothing is left', () => {
  good(state(IN))
  good(state(OUT))
  good('xfrm policy add src 10.0.0.1 dst 10.0.0.2 dir out tmpl proto esp')
  s.send(0, espFrame(IN, 1, PING, 1)) // so that there is a bundle
  expect(s.solo.audit()).toEqual([])
  expect(conserved(s.fates())).toBe(true)
})
