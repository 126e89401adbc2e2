import { execFileSync, spawn } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { AtomicFile, writeFileAtomic } from '../../../src/lab/atomicWrite.js'
import { UsageError } from '../../../src/lab/errors.js'
import { readInput } from '../../../src/lab/input.js'
import { cutNotice, PcapWriter, parsePcap, readPcap } from '../../../src/lab/pcap.js'
import { parseRoutes, readRoutes } from '../../../src/lab/routesFile.js'
import { overcommit } from '../../../src/lab/verbs/verb.js'
import { slabinfo } from '../../../src/mm/slab.js'
import { mixedFrames, pcapOf, steadyFrames } from '../../helpers/captures.js'
import { ip, Solo } from '../../helpers/solo.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..')
const dir = mkdtempSync(join(tmpdir(), 'softnet-'))
afterAll(() => rmSync(dir, { recursive: true }))

/** A classic capture by the book, in either byte order and resolution. */
function capture(frames: Uint8Array[], little: boolean, nano: boolean, link = 1): Uint8Array {
  const out = new Uint8Array(24 + frames.reduce((n, f) => n + 16 + f.length, 0))
  const v = new DataView(out.buffer)
  v.setUint32(0, nano ? 0xa1b23c4d : 0xa1b2c3d4, little)
  v.setUint16(4, 2, little)
  v.setUint16(6, 4, little)
  v.setUint32(16, 65535, little)
  v.setUint32(20, link, little)
  let at = 24
  frames.forEach((f, k) => {
    v.setUint32(at, 1000 + k, little)
    v.setUint32(at + 4, nano ? 5_000 : 5, little)
    v.setUint32(at + 8, f.length, little)
    v.setUint32(at + 12, f.length, little)
    out.set(f, at + 16)
    at += 16 + f.length
  })
  return out
}
const frames = [new Uint8Array(60).fill(1), new Uint8Array(1514).fill(2), new Uint8Array(0)]

describe('captures', () => {
  test.each([
    [true, true],
    [true, false],
    [false, true],
    [false, false],
  ])('little-endian %s, nanoseconds %s', (little, nano) => {
    const c = parsePcap(capture(frames, little, nano), 'x')
    expect([...c.lengths]).toEqual([60, 1514, 0])
    expect([...c.times]).toEqual([0, 1e9, 2e9])
    expect(c.data[c.offsets[1]!]).toBe(2)
  })
  test('what is written is what is read', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.uint8Array({ maxLength: 2000 }), fc.nat(1e12)), { maxLength: 50 }), rows => {
        rows.sort((a, b) => a[1] - b[1])
        const chunks: Uint8Array[] = []
        const writer = new PcapWriter(b => chunks.push(b))
        for (const [f, ns] of rows) writer.frame(f, ns)
        writer.end()
        const c = parsePcap(Buffer.concat(chunks), 'x')
        expect(c.offsets.length).toBe(rows.length)
        rows.forEach(([f, ns], k) => {
          expect([...c.data.subarray(c.offsets[k]!, c.offsets[k]! + c.lengths[k]!)]).toEqual([...f])
          expect(c.times[k]).toBe(ns - rows[0]![1])
        })
      }),
    )
  })
  test('a check sequence behind each frame is not the frame', () => {
    const fcs = 0x2400_0001 // two pairs of bytes
    for (const word of [fcs, 0x9000_0001]) {
      const c = parsePcap(capture(frames, false, false, word), 'x')
      expect([...c.lengths, c.cut]).toEqual([56, 1510, 0, 0])
    }
    const cut = capture(frames, true, false, fcs)
    const v = new DataView(cut.buffer)
    v.setUint32(24 + 12, 63, true) // of the first frame's check sequence one byte is there
    v.setUint32(24 + 16 + 60 + 12, 1600, true)
    expect([...parsePcap(cut, 'x').lengths]).toEqual([59, 1514, 0])
    expect(parsePcap(cut, 'x').cut).toBe(1)
    expect([...parsePcap(capture(frames, true, false, 0x0800_0001), 'x').lengths]).toEqual([60, 1514, 0])
  })
  test('when it began, and what to say of frames that were cut', () => {
    const c = parsePcap(capture(frames, true, true), 'x')
    expect(c.start).toBe(1000_000_005_000n)
    expect(cutNotice(c, 'x')).toBe(null)
    expect(cutNotice({ ...c, cut: 2 }, 'x')).toBe('x: 2 of 3 frames hold only their beginning')
  })
  const good = capture(frames, true, false)
  const broken: [string, Uint8Array, RegExp][] = [
    ['an empty file', new Uint8Array(0), /^x: not a capture: 0 bytes long$/],
    ['another kind of file', Buffer.from('hello, world'), /^x: not a pcap capture \(magic 0x68656c6c\)$/],
    ['pcapng', Uint8Array.of(0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0), /^x: is a pcapng file; convert it with: editcap/],
    ['another link type', capture(frames, true, false, 113), /^x: link type 113 \(Linux cooked\), only Ethernet/],
    ['a cut file header', good.subarray(0, 20), /^x: truncated in its file header$/],
    ['a cut record header', good.subarray(0, 30), /^x: packet 1: truncated in its record header$/],
    ['a cut frame', good.subarray(0, 24 + 16 + 60 + 16 + 1000), /^x: packet 2: truncated, 514 bytes are missing$/],
    [
      'an absurd length',
      Uint8Array.from([...good.subarray(0, 35), 0x7f, ...good.subarray(36)]),
      /^x: packet 1: corrupt/,
    ],
  ]
  test.each(broken)('%s is refused in one line', (_what, bytes, message) => {
    expect(() => parsePcap(bytes, 'x')).toThrow(UsageError)
    expect(() => parsePcap(bytes, 'x')).toThrow(message)
  })
  test('the shipped ones are what their script makes', async () => {
    expect(readFileSync(join(root, 'data/mix.pcap')).equals(pcapOf(mixedFrames()))).toBe(true)
    expect(readFileSync(join(root, 'data/steady.pcap')).equals(pcapOf(steadyFrames()))).toBe(true)
    expect((await readPcap(join(root, 'data/steady.pcap'))).offsets.length).toBe(256)
  })
})

describe('routes files', () => {
  test('the example', async () => {
    const f = await readRoutes(join(root, 'data/example.routes'))
    expect(f.interfaces.map(i => [i.name, i.mtu])).toEqual([
      ['eth0', 1500],
      ['eth1', 1500],
      ['eth2', 576],
    ])
    expect(f.routes[0]).toEqual({
      dst: 0,
      prefixlen: 0,
      type: 'unicast',
      metric: 0,
      nexthops: [{ gw: ip('10.2.0.254'), dev: 'eth1', weight: 1 }],
    })
    expect(f.neighbours).toHaveLength(5)
  })
  const eth0 = 'interface eth0 address 10.0.0.1/24 mac 02:00:00:00:00:01\n'
  test.each([
    ['several next hops', 'route 1.0.0.0/8 nexthop via 10.0.0.2 weight 3 nexthop via 10.0.0.3 metric 7', 2],
    ['one of an interface', 'route 1.0.0.0/8 dev eth0', 1],
    ['a host route', 'route 1.2.3.4 via 10.0.0.2', 1],
    ['nowhere', 'route blackhole 1.0.0.0/8', 0],
    ['an end of the search', 'route throw 1.0.0.0/8 metric 3', 0],
  ])('a route with %s', (_what, line, hops) => {
    expect(parseRoutes(eth0 + line, 'x').routes[0]!.nexthops).toHaveLength(hops)
  })
  test('a neighbour of a named interface, two addresses of one network, a point-to-point link', () => {
    const f = parseRoutes(`${eth0}neighbour 192.0.2.7 mac 02:00:00:00:00:07 dev eth0`, 'x')
    expect(f.neighbours[0]).toMatchObject({ address: ip('192.0.2.7'), dev: 'eth0' })
    parseRoutes('interface eth0 address 10.0.0.1/24 address 10.0.0.2/24 mac 02:00:00:00:00:01', 'x')
    parseRoutes('interface eth0 address 10.0.0.0/31 mac 02:00:00:00:00:01\nroute default via 10.0.0.1', 'x')
  })
  test.each([
    ['', 'x: there is no interface in it'],
    ['frob', "x:1: 'frob' is not known: a line begins with interface, route or neighbour"],
    [`${eth0}route 1.0.0.0/33 via 10.0.0.2`, "x:2: '1.0.0.0/33': the prefix length must be 0 to 32"],
    [`${eth0}route 1.0.0.1/8 via 10.0.0.2`, "x:2: '1.0.0.1/8' has bits set beyond its prefix length"],
    [`${eth0}route 1.0.0/8 via 10.0.0.2`, "x:2: '1.0.0' is not an IPv4 address"],
    [`${eth0}route 1.0.0.0/8 via 10.9.0.2`, 'x:2: gateway 10.9.0.2 is on no network of an interface'],
    [`${eth0}route 1.0.0.0/8`, 'x:2: route 1.0.0.0/8 has no next hop'],
    [`${eth0}route 1.0.0.0/8 dev eth7`, 'x:2: there is no interface eth7 above this line'],
    [`${eth0}route throw 1.0.0.0/8 dev eth0`, 'x:2: a throw route takes no next hop'],
    [`${eth0}route unreachable 1.0.0.0/8 via 10.0.0.2`, 'x:2: an unreachable route takes no next hop'],
    [`${eth0}route throw`, 'x:2: the prefix is missing'],
    [`${eth0}route throw 1.0.0.1/8`, "x:2: '1.0.0.1/8' has bits set beyond its prefix length"],
    [`${eth0}${eth0}`, 'x:2: interface eth0 is given twice'],
    ['interface eth0 address 10.0.0.1/24', 'x:1: interface eth0 has no mac'],
    ['interface eth0 mac 02:00:00:00:00:01', 'x:1: interface eth0 has no address'],
    [
      'interface eth0 address 10.0.0.1 mac 02:00:00:00:00:01',
      "x:1: '10.0.0.1' needs a prefix length, such as 10.0.0.1/24",
    ],
    ['interface eth0 mtu 67', "x:1: the MTU '67' must be a whole number from 68 to 9000"],
    ['interface eth0 mac 01:00:00:00:00:01', 'x:1: 01:00:00:00:00:01 is a multicast address'],
    [`${eth0}route 1.0.0.0/8 dev eth0\nroute 1.0.0.0/8 via 10.0.0.2`, 'x:3: route 1.0.0.0/8 is given twice'],
    [
      `${eth0}route 10.0.0.0/24 via 10.0.0.2`,
      'x:2: route 10.0.0.0/24 is the network of eth0: another one needs a metric',
    ],
    [`${eth0}route blackhole 10.0.0.0/24`, 'x:2: route 10.0.0.0/24 is the network of eth0: another one needs a metric'],
    [
      `${eth0}route 10.5.0.0/16 dev eth0\ninterface eth1 address 10.5.9.1/16 mac 02:00:00:00:00:02`,
      'x:3: there is a route to the network of 10.5.9.1/16 above this line',
    ],
    [
      'interface eth0 address 10.0.0.1/0 mac 02:00:00:00:00:01\nroute default via 10.0.0.2',
      'x:2: route default is the network of eth0: another one needs a metric',
    ],
    [
      'interface eth0 address 10.0.0.1/24 address 10.0.0.1/24 mac 02:00:00:00:00:01',
      'x:1: address 10.0.0.1/24 is given twice',
    ],
    [
      'interface eth\u00e9 address 10.0.0.1/24 mac 02:00:00:00:00:01',
      "x:1: 'eth\u00e9' cannot be the name of an interface",
    ],
    [
      `${eth0}neighbour 10.5.0.1 mac 02:00:00:00:00:05`,
      'x:2: neighbour 10.5.0.1 is on no network of an interface; with dev NAME it need not be',
    ],
    [`${eth0}route 10.0.0.0/24/8 via 10.0.0.2`, "x:2: '10.0.0.0/24/8' has more than one prefix length"],
    ['interface eth0 address 10.0.0.1/24/8', "x:1: '10.0.0.1/24/8' has more than one prefix length"],
    [
      `${eth0}interface eth1 address 10.1.0.1/24 mac 02:00:00:00:00:01`,
      'x:2: interface eth1 has the mac of another one',
    ],
    [`${eth0}interface eth1 address 10.0.0.1/25 mac 02:00:00:00:00:02`, 'x:2: address 10.0.0.1/25 is given twice'],
    [
      `${eth0}interface eth1 address 10.0.0.9/24 mac 02:00:00:00:00:02`,
      'x:2: the network of 10.0.0.9/24 is that of eth0',
    ],
    [`${eth0}route 1.0.0.0/8 via 10.0.0.1`, "x:2: gateway 10.0.0.1 is this router's own (eth0)"],
    [`${eth0}route 1.0.0.0/8 via 10.0.0.0`, 'x:2: gateway 10.0.0.0 is a network address of eth0'],
    [`${eth0}route 1.0.0.0/8 via 10.0.0.255`, 'x:2: gateway 10.0.0.255 is a broadcast address of eth0'],
    ['interface eth0 address 10.0.0.0/24', 'x:1: 10.0.0.0 is the network address of 10.0.0.0/24'],
    ['interface eth0 address 10.0.0.255/24', 'x:1: 10.0.0.255 is the broadcast address of 10.0.0.255/24'],
    [`${eth0}neighbour 10.0.0.1 mac 02:00:00:00:00:05`, "x:2: neighbour 10.0.0.1 is this router's own (eth0)"],
    ['interface eth0 mac 00:00:00:00:00:00', "x:1: 00:00:00:00:00:00 is nobody's address"],
    ['interface eth0 mac 02:00:00:00:00:01 mac 02:00:00:00:00:02', 'x:1: mac is given twice'],
    [`${eth0}route blackhole 1.0.0.0/8 via 10.0.0.2`, 'x:2: a blackhole route takes no next hop'],
    [`${eth0}route unreachable 1.0.0.0/8 via 10.0.0.2`, 'x:2: an unreachable route takes no next hop'],
  ])('%j is refused in one line', (text, message) => {
    expect(() => parseRoutes(text, 'x')).toThrow(new UsageError(message))
  })
})

test('when a machine has more threads than the host can run at once', () => {
  expect(overcommit(1, 2, '')).toBe(null)
  expect(overcommit(2, 4, '')).toBe(null)
  expect(overcommit(2, 2, '; so')).toBe(
    "2 CPUs on 2 host cores: the NIC's thread shares a core with a CPU, so rates suffer; so",
  )
  expect(overcommit(4, 2, '')).toMatch(/^4 CPUs on 2 host cores take turns/)
})

describe('inputs', () => {
  test('a file, a pipe that is written late', async () => {
    const bytes = readFileSync(join(root, 'data/mix.pcap'))
    const fifo = join(dir, 'fifo')
    execFileSync('mkfifo', [fifo])
    const late = 'sleep 0.3; (head -c 40000 "$1"; sleep 0.2; tail -c +40001 "$1") > "$2"'
    spawn('sh', ['-c', late, 'sh', join(root, 'data/mix.pcap'), fifo])
    expect((await readInput(fifo)).equals(bytes)).toBe(true)
    rmSync(fifo)
    expect((await readInput(join(root, 'data/mix.pcap'))).equals(bytes)).toBe(true)
  })
  test('is called off', async () => {
    const fifo = join(dir, 'nobody')
    execFileSync('mkfifo', [fifo])
    await expect(readInput(fifo, AbortSignal.timeout(100))).rejects.toThrow(/abort|timeout/i)
    await expect(readInput('/dev/zero', AbortSignal.timeout(100))).rejects.toThrow(/abort|timeout/i)
    rmSync(fifo)
  })
  test('one that is too large is refused', async () => {
    await expect(readInput('/dev/zero', undefined, 1e6)).rejects.toThrow(
      new UsageError('cannot read /dev/zero: it is larger than 1000000 bytes'),
    )
    await expect(readInput(join(root, 'data/mix.pcap'), undefined, 1000)).rejects.toThrow(UsageError)
  })
})

describe('large routes files', () => {
  const eth0 = 'interface eth0 address 10.0.0.1/8 mac 02:00:00:00:00:01\n'
  const host = (k: number): string => `10.${1 + (k >> 16)}.${(k >> 8) & 255}.${k & 255}`
  const net = (k: number): string => `11.${k >> 16}.${(k >> 8) & 255}.${k & 255}`
  const lines = (n: number, line: (k: number) => string): string =>
    eth0 + Array.from({ length: n }, (_, k) => line(k)).join('\n')
  test.each([
    ['neighbours', 8192, (k: number) => `neighbour ${host(k)} mac 02:00:00:00:00:05`, 'neighbours'],
    ['routes', 64_512, (k: number) => `route ${net(k)} via 10.0.0.2`, 'routes'],
    ['metrics', 7423, (k: number) => `route 11.0.0.0/8 via 10.0.0.2 metric ${k}`, 'different next hops and metrics'],
    ['next hops', 7423, (k: number) => `route ${net(k)} via ${host(k)}`, 'different next hops and metrics'],
  ])('as many %s as the kernel has room for, and not one more', (_what, n, line, words) => {
    expect(() => parseRoutes(lines(n, line), 'x')).not.toThrow()
    expect(() => parseRoutes(lines(n + 1, line), 'x')).toThrow(new UsageError(`x:${n + 2}: more than ${n} ${words}`))
  })
  test('more addresses than the kernel has room for', () => {
    const addresses = Array.from({ length: 257 }, (_, k) => `address ${host(k + 1)}/16`).join(' ')
    expect(() => parseRoutes(`interface eth0 ${addresses}`, 'x')).toThrow(
      new UsageError('x:1: more than 256 addresses'),
    )
  })
  test('the kernel has room for all of them', () => {
    const some = (n: number, line: (k: number) => string): string =>
      Array.from({ length: n }, (_, k) => line(k)).join('\n')
    const addresses = Array.from({ length: 32 }, (_, k) => `address 10.0.0.${k + 1}/${8 + (k % 17)}`).join(' ')
    const ports = Array.from(
      { length: 8 },
      (_, k) => `interface eth${k} ${addresses.replaceAll(' 10.', ` ${20 + k}.`)} mac 02:00:00:00:00:0${k + 1}`,
    )
    const text = [
      ...ports,
      some(8192, k => `neighbour ${host(k).replace(/^10/, '20')} mac 02:00:00:00:00:05`),
      some(7422, k => `route ${net(k)} via ${host(k).replace(/^10/, '21')}`),
      some(64_512 - 7422, k => `route ${net(100_000 + k)} via 20.1.0.0`),
    ].join('\n')
    const { interfaces, routes, neighbours } = parseRoutes(text, 'x')
    const solo = new Solo({ ports: interfaces, routes, neighbours, config: { rx_ring: 16 } })
    const used = (name: string): number => slabinfo().find(c => c.name === name)!.used
    expect(used('ip_fib_alias')).toBeGreaterThan(64_512)
    expect(used('arp_cache')).toBe(8192)
    expect(solo.audit()).toEqual([])
  })
})

describe('output files', () => {
  test('appear whole, or not at all', () => {
    const path = join(dir, 'a.txt')
    const file = new AtomicFile(path)
    file.write('half')
    expect(existsSync(path)).toBe(false)
    file.discard()
    expect(readdirSync(dir)).toEqual([])
    writeFileAtomic(path, 'whole')
    expect(readFileSync(path, 'utf8')).toBe('whole')
  })
  test('a folder, a missing folder: refused before the work', () => {
    expect(() => new AtomicFile(dir)).toThrow(UsageError)
    expect(() => new AtomicFile(join(dir, 'no', 'where'))).toThrow('no such file or folder')
  })
  test('a link stays one, an existing file keeps its mode, a long name fits', () => {
    const path = join(dir, 'target')
    writeFileSync(path, 'old', { mode: 0o640 })
    symlinkSync('target', join(dir, 'link'))
    symlinkSync('fresh', join(dir, 'dangling'))
    writeFileAtomic(join(dir, 'link'), 'new')
    writeFileAtomic(join(dir, 'dangling'), 'new')
    expect([readFileSync(path, 'utf8'), readFileSync(join(dir, 'fresh'), 'utf8')]).toEqual(['new', 'new'])
    expect(lstatSync(join(dir, 'link')).isSymbolicLink()).toBe(true)
    expect(statSync(path).mode & 0o777).toBe(0o640)
    const long = 'n'.repeat(255)
    writeFileAtomic(join(dir, long), 'x')
    expect(readdirSync(dir)).toContain(long)
    expect(() => new AtomicFile(join(dir, `${long}n`))).toThrow('the name is too long')
  })
  test('a path that leads nowhere is refused in words', () => {
    expect(() => new AtomicFile(join(dir, 'target', 'below'))).toThrow(UsageError)
    expect(() => new AtomicFile(join(dir, 'target', 'below'))).toThrow('a part of the path is not a folder')
    symlinkSync('loop', join(dir, 'loop'))
    expect(() => new AtomicFile(join(dir, 'loop'))).toThrow('too many symbolic links')
  })
  test('a full disk: one clear line, the old file stays', () => {
    expect(() => writeFileAtomic('/dev/full', 'x')).toThrow('cannot write /dev/full: no space left on the disk')
  })
  test('a process that dies takes its temporary files with it', () => {
    const target = join(dir, 'b.txt')
    const script = join(dir, 'die.mjs')
    writeFileSync(
      script,
      `import { AtomicFile } from ${JSON.stringify(new URL('../../../src/lab/atomicWrite.js', import.meta.url).href)}
       new AtomicFile(${JSON.stringify(target)}).write('half')
       throw new Error('died')`,
    )
    expect(() => execFileSync(process.execPath, [script], { stdio: 'ignore' })).toThrow()
    expect(readdirSync(dir).filter(f => f.includes('b.txt'))).toEqual([])
  })
})
