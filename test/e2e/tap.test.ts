/**
 * Real peers: the host's own programs, in network namespaces, talk to the machine and through it. Needs root, the device and
 * the programs; what is missing is said.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TapResult } from '../../src/lab/tap.js'
import { complaints, hasTshark } from '../helpers/tshark.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const bin = join(root, 'bin/softnet.mjs')
const dir = mkdtempSync(join(tmpdir(), 'softnet-tap-'))
afterAll(() => rmSync(dir, { recursive: true }))

function sh(command: string, ...args: string[]): { code: number | null; out: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', timeout: 60_000 })
  return { code: status, out: error === undefined ? stdout + stderr : String(error) }
}
const has = (program: string): boolean => sh('which', program).code === 0

/** Namespaces of this run, one behind each TAP device. */
const ns = [`sn${process.pid}a`, `sn${process.pid}b`]
const taps = [`st${process.pid % 10_000}a`, `st${process.pid % 10_000}b`]
const rights = existsSync('/dev/net/tun') && has('ip') && sh('ip', 'netns', 'add', ns[0]!).code === 0
if (rights) sh('ip', 'netns', 'del', ns[0]!)
if (!rights) console.warn('tap: no network namespaces or TAP devices here: real peers are not tested')
const inside = (k: number, ...args: string[]): { code: number | null; out: string } =>
  sh('ip', 'netns', 'exec', ns[k]!, ...args)
const must = (...args: string[]): void => {
  const { code, out } = sh(args[0]!, ...args.slice(1))
  if (code !== 0) throw new Error(`${args.join(' ')}: ${out}`)
}

/** A machine on TAP devices, each of which ends in a namespace of its own. */
class Tapped {
  private constructor(
    private readonly child: ChildProcess,
    private readonly n: number,
  ) {}

  static async start(n: number, ...args: string[]): Promise<Tapped> {
    const ports = taps.slice(0, n).flatMap((tap, k) => ['--tap', `${tap}=10.${k + 1}.0.1/24`])
    const captures = taps.slice(0, n).flatMap((tap, k) => ['--capture', `${tap}=${join(dir, `${k}.pcap`)}`])
    const json = ['--json', join(dir, 'tap.json')]
    const child = spawn(process.execPath, [bin, 'tap', ...ports, ...captures, ...json, ...args], { cwd: dir })
    let said = ''
    child.stderr.setEncoding('utf8')
    await new Promise<void>((resolve, reject) => {
      child.stderr.on('data', (text: string) => {
        said += text
        if (said.includes(`is on ${taps[n - 1]}`)) resolve()
      })
      child.on('exit', code => reject(new Error(`ended with ${code}: ${said}`)))
    })
    for (let k = 0; k < n; k++) {
      must('ip', 'netns', 'add', ns[k]!)
      must('ip', 'link', 'set', taps[k]!, 'netns', ns[k]!)
      for (const command of [
        ['link', 'set', 'lo', 'up'],
        ['addr', 'add', `10.${k + 1}.0.2/24`, 'dev', taps[k]!],
        ['link', 'set', taps[k]!, 'up'],
        ['route', 'add', 'default', 'via', `10.${k + 1}.0.1`],
      ])
        must('ip', '-n', ns[k]!, ...command)
    }
    return new Tapped(child, n)
  }

  async stop(): Promise<TapResult> {
    this.child.kill('SIGINT')
    const [code] = (await once(this.child, 'exit')) as [number]
    for (let k = 0; k < this.n; k++) sh('ip', 'netns', 'del', ns[k]!)
    expect(code).toBe(130)
    return JSON.parse(readFileSync(join(dir, 'tap.json'), 'utf8')) as TapResult
  }
}

const loss = (out: string): string | undefined => /(\d+(?:\.\d+)?)% packet loss/.exec(out)?.[1]

describe.runIf(rights)('a router between two namespaces, on two CPUs', () => {
  let machine: Tapped
  let result: TapResult | null = null
  beforeAll(async () => {
    machine = await Tapped.start(2, '--forward', '--cpus', '2')
  })
  afterAll(async () => {
    if (result === null) await machine.stop()
  })

  test.runIf(has('ping')).each([0, 1, 56, 1472, 1473, 9000, 65_507])(
    'ping with %i bytes, to it and through it',
    size => {
      for (const to of ['10.1.0.1', '10.2.0.2'])
        expect(loss(inside(0, 'ping', '-c', '3', '-i', '0.1', '-s', String(size), to).out)).toBe('0')
    },
  )
  test.runIf(has('ping'))('flood ping of 10,000 packets through it loses none', () => {
    const { out } = inside(0, 'ping', '-f', '-c', '10000', '10.2.0.2')
    expect(out).toContain('10000 packets transmitted, 10000 received')
  })
  test.runIf(has('traceroute'))('traceroute sees it as the first hop', () => {
    // One probe at a time: the second hop is the host's own kernel, which sends six ICMP errors at once to one peer and then one a
    // second. Of sixteen probes at once it answers any six.
    const { out } = inside(0, 'traceroute', '-n', '-N', '1', '10.2.0.2')
    expect(out).toMatch(/ 1 {2}10\.1\.0\.1 [^*]*\n 2 {2}10\.2\.0\.2 [^*]*\n/)
  })
  test.runIf(has('tracepath'))('tracepath finds the path MTU and both hops', () => {
    const { out } = inside(0, 'tracepath', '-n', '10.2.0.2')
    expect(out).toMatch(/10\.1\.0\.1/)
    expect(out).toMatch(/10\.2\.0\.2 .*reached/)
    expect(out).toContain('pmtu 1500 hops 2')
  })
  test.runIf(has('arping'))('arping gets an answer to each question', () => {
    const { out } = inside(0, 'arping', '-c', '3', '-I', taps[0]!, '10.1.0.1')
    expect(out).toMatch(/Received 3 response/)
  })
  test.runIf(has('nmap'))('nmap sees the host, the open port and the closed ones', () => {
    expect(inside(0, 'nmap', '-n', '-sn', '-PE', '10.1.0.1', '10.2.0.2', '10.2.0.9').out).toContain('(2 hosts up)')
    const { out } = inside(0, 'nmap', '-n', '-Pn', '-sU', '--max-retries', '2', '-p', '7,9,5353', '10.1.0.1')
    expect(out).toMatch(/7\/udp +open +echo/)
    expect(out).toMatch(/9\/udp +closed/)
    expect(out).toMatch(/5353\/udp +closed/)
  })
  test.runIf(has('nc'))('nc gets back what it sends', () => {
    const { stdout } = spawnSync('ip', ['netns', 'exec', ns[1]!, 'nc', '-u', '-w', '1', '10.2.0.1', '7'], {
      input: 'hello, 2005\n',
      encoding: 'utf8',
    })
    expect(stdout).toBe('hello, 2005\n')
  })
  test('100,000 datagrams are echoed, each with its content', { timeout: 120_000 }, () => {
    const script = join(root, 'dist/test/helpers/echoClient.js')
    const { out } = sh('ip', 'netns', 'exec', ns[0]!, process.execPath, script, '10.1.0.1', '7', '100000')
    expect(JSON.parse(out)).toEqual({ sent: 100_000, right: 100_000, wrong: 0 })
  })
  test.runIf(has('iperf3'))('iperf3 sends UDP from one namespace to the other', { timeout: 60_000 }, async () => {
    const server = spawn('ip', ['netns', 'exec', ns[1]!, 'iperf3', '-s', '-1'], { stdio: 'ignore' })
    await new Promise(resolve => setTimeout(resolve, 500))
    const { out } = inside(0, 'iperf3', '-J', '-u', '-c', '10.2.0.2', '-b', '20M', '-l', '1400', '-t', '3')
    server.kill()
    const { end } = JSON.parse(out) as { end: { sum: { packets: number; lost_packets: number } } }
    expect(end.sum.packets).toBeGreaterThan(5000)
    expect(end.sum.lost_packets / end.sum.packets).toBeLessThan(0.01)
  })

  test('in the end nothing is lost from its books, and nothing leaks', async () => {
    result = await machine.stop()
    expect(result.leaks).toEqual([])
    expect(result.fates.forwarded).toBeGreaterThan(20_000)
    expect(result.ports.map(p => p.missed)).toEqual([0, 0])
  })
  test.runIf(hasTshark)('tshark finds nothing wrong in what went over its wires', { timeout: 120_000 }, () => {
    for (const k of [0, 1]) expect(complaints(join(dir, `${k}.pcap`))).toBe('')
  })
})

describe.runIf(rights).each(['interrupt', 'softnet', 'napi', 'polled'])('a host, receiving by %s', rx => {
  test('answers', async () => {
    const machine = await Tapped.start(1, '--rx', rx)
    const { out } = inside(0, 'ping', '-c', '20', '-i', '0.02', '-s', '4000', '10.1.0.1')
    const outside = inside(0, 'ping', '-c', '1', '-W', '1', '10.9.0.1')
    const result = await machine.stop()
    expect(loss(out)).toBe('0')
    expect(loss(outside.out)).toBe('100') // it is no router
    expect(result.fates.drops.ip_not_forwarding).toBe(1)
    expect(result.leaks).toEqual([])
  })
})

const resolver = has('dig')
if (!resolver) console.warn('tap: no dig here: the name server is not asked by a real one')

describe.runIf(rights && resolver)('named, asked by programs of the host', () => {
  let machine: Tapped
  let result: TapResult | null = null
  beforeAll(async () => {
    machine = await Tapped.start(1, '--run', 'named gate.lab=10.1.0.1 www.lab=10.1.0.7 www.lab=10.1.0.8')
  })
  afterAll(async () => {
    if (result === null) await machine.stop()
  })
  const dig = (...words: string[]): string => inside(0, 'dig', '@10.1.0.1', '+tries=2', '+time=2', ...words).out

  test('dig gets addresses and names, with EDNS and without, and is told what there is not', () => {
    expect(dig('+short', 'WWW.lab').trim().split('\n').sort()).toEqual(['10.1.0.7', '10.1.0.8'])
    expect(dig('+short', '+noedns', 'gate.lab')).toBe('10.1.0.1\n')
    expect(dig('+short', '-x', '10.1.0.7')).toBe('www.lab.\n')
    const all = dig('gate.lab')
    expect(all).toMatch(/status: NOERROR/)
    expect(all).toMatch(/flags:[^;]* aa[ ;]/)
    expect(all).not.toMatch(/Warning|malformed/)
    expect(dig('no.lab')).toMatch(/status: NXDOMAIN/)
    expect(dig('gate.lab', 'AAAA')).toMatch(/status: NOERROR.*\n.*ANSWER: 0/)
  })
  test.runIf(has('nmap'))('nmap finds the host and its name server', () => {
    expect(inside(0, 'nmap', '-n', '-sn', '-PE', '10.1.0.1').out).toContain('(1 host up)')
    const { out } = inside(0, 'nmap', '-n', '-Pn', '-sU', '--max-retries', '2', '-p', '53,54', '10.1.0.1')
    expect(out).toMatch(/53\/udp +open +domain/)
    expect(out).toMatch(/54\/udp +closed/)
  })
  test('nothing leaks', async () => {
    result = await machine.stop()
    expect(result.leaks).toEqual([])
  })
})

describe('what is wrong is said in one line', () => {
  test.each([
    [[], /--tap: at least one DEVICE/],
    [['--tap', 'tap0'], /--tap tap0: must be DEVICE=ADDRESS/],
    [['--tap', 'tap0=10.0.0.1'], /needs a prefix length/],
    [['--tap', 'tap0=10.0.0.0/24'], /is the network address/],
    [['--tap', 'tap0=10.0.0.1/24', '--tap', 'tap0=10.0.1.1/24'], /given twice/],
    [['--tap', 'tap0=10.0.0.1/24', '--gateway', '10.1.0.1'], /--gateway 10.1.0.1: the gateway is on no network/],
    [['--tap', 'tap0=10.0.0.1/24', '--capture', 'tap1=x.pcap'], /--capture tap1: there is no --tap tap1/],
    [['--tap', 'tap0=10.0.0.1/24', '--route', '10.1.0.0/16'], /--route 10.1.0.0\/16: must be PREFIX=GATEWAY/],
    [['--tap', 'tap0=10.0.0.1/24', '--sysctl', 'x'], /--sysctl x: must be NAME=NUMBER/],
    [['--tap', 'tap0=10.0.0.1/24', '--mtu', '67'], /--mtu 67/],
  ])('%j', (args, message) => {
    const { status, stderr } = spawnSync(process.execPath, [bin, 'tap', ...args], { encoding: 'utf8', cwd: dir })
    expect([status, stderr.trimEnd().split('\n').length]).toEqual([2, 1])
    expect(stderr).toMatch(message)
  })
  test.runIf(rights)('a sysctl that the kernel does not have, and a device without rights', () => {
    const tap = ['tap', '--tap', `${taps[0]}=10.0.0.1/24`, '--seconds', '1']
    const unknown = sh(process.execPath, bin, ...tap, '--sysctl', 'net.ipv4.nothing=1')
    expect(unknown.out).toBe('softnet: --sysctl net.ipv4.nothing=1: there is no sysctl net.ipv4.nothing\n')
    expect(unknown.code).toBe(2)
    const nothing = sh(process.execPath, bin, ...tap, '--run', 'ping x', '--run', 'nothing at all')
    expect(nothing.out).toMatch(/^softnet: --run nothing at all: .*\n$/)
    expect(nothing.code).toBe(2)
    const nobody = spawnSync(process.execPath, [bin, ...tap], { encoding: 'utf8', cwd: dir, uid: 65534, gid: 65534 })
    expect(nobody.stderr).toMatch(/not permitted|permission denied/)
    expect(nobody.status).toBe(1)
  })
})
