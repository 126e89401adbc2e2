/** The example scenarios, on any number of CPUs and with either clock; and the command line around them. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { parsePcap } from '../../src/lab/pcap.js'
import { readProfile } from '../../src/lab/profile.js'
import { runScenario, type ScenarioResult } from '../../src/lab/scenario/run.js'
import { parseScenario, type ScenarioSpec } from '../../src/lab/scenario/schema.js'
import { complaints, decrypted, type EspKeys, hasTshark } from '../helpers/tshark.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const bin = join(root, 'bin/softnet.mjs')
const examples = join(root, 'data/scenarios')
const dir = mkdtempSync(join(tmpdir(), 'softnet-run-'))
afterAll(() => rmSync(dir, { recursive: true }))

function scenario(name: string, change: Partial<ScenarioSpec> = {}, cpus?: number): ScenarioSpec {
  const spec = { ...parseScenario(readFileSync(join(examples, `${name}.yaml`), 'utf8'), name), ...change }
  if (cpus === undefined) return spec
  return { ...spec, hosts: Object.fromEntries(Object.entries(spec.hosts).map(([n, h]) => [n, { ...h, cpus }])) }
}
const modern = readProfile('modern')
/** What programs said, without what depends on how fast a machine is. */
const said = (r: ScenarioResult): string[] =>
  r.programs.map(p => `${p.host} ${p.argv[0]} ${p.exit}\n${p.output.replaceAll(/\d+(\.\d+)? ?ms|\d+\.\d+/g, '#')}`)
function sound(r: ScenarioResult): void {
  expect(r.programs.map(p => [p.argv.join(' '), p.ok, p.output])).toEqual(
    r.programs.map(p => [p.argv.join(' '), true, expect.any(String)]),
  )
  expect(r.hosts.flatMap(h => h.leaks)).toEqual([])
}
const names = readdirSync(examples)
  .filter(f => f.endsWith('.yaml'))
  .map(f => f.slice(0, -5))

describe.each(names)('%s', name => {
  test('ends as its file expects, says the same on 1, 2 and 4 CPUs, and twice the same to the bit', {
    timeout: 300_000,
  }, async () => {
    const one = await runScenario(scenario(name, {}, 1), modern)
    sound(one)
    expect(await runScenario(scenario(name, {}, 1), modern)).toEqual(one)
    for (const cpus of [2, 4]) {
      const more = await runScenario(scenario(name, {}, cpus), modern)
      sound(more)
      expect(said(more)).toEqual(said(one))
    }
  })
})

test('a line fails: the way goes around it until it is mended', { timeout: 120_000 }, async () => {
  const { programs } = await runScenario(scenario('failover'), modern)
  const ways = programs
    .filter(p => p.argv[0] === 'traceroute')
    .map(p => p.output.match(/^ *\d+ {2}\S+/gm)!.map(l => l.trim().slice(3)))
  const direct = ['10.1.0.1', '10.12.0.2', '10.3.0.2']
  expect(ways).toEqual([direct, ['10.1.0.1', '10.13.0.3', '10.23.0.2', '10.3.0.2'], direct])
})

test('controlled: another order of CPUs with each seed, and each time the same end', { timeout: 120_000 }, async () => {
  const hashes = new Set<string>()
  const first = await runScenario(scenario('ping', { clock: 'controlled' }, 2), modern)
  for (let seed = 1; seed <= 4; seed++) {
    const r = await runScenario(scenario('ping', { clock: 'controlled', seed }, 2), modern)
    sound(r)
    expect(said(r)).toEqual(said(first))
    hashes.add(r.hash!)
  }
  expect(hashes.size).toBe(4)
  expect(hashes).toContain(first.hash)
})

test('with a real clock', { timeout: 60_000 }, async () => {
  sound(await runScenario(scenario('ping', { clock: 'real' }), null))
})

/** What tshark is told of the gateways of examples: their SPIs. */
function keysOf(there: string, back: string): EspKeys[] {
  const one = { enc: '0x00112233445566778899aabbccddeeff', auth: '0x0102030405060708090a0b0c0d0e0f1011121314' }
  const other = { enc: '0xffeeddccbbaa99887766554433221100', auth: '0x1112131415161718191a1b1c1d1e1f2021222324' }
  return [
    { src: '192.0.2.1', dst: '192.0.2.2', spi: there, ...one },
    { src: '192.0.2.2', dst: '192.0.2.1', spi: back, ...other },
  ]
}

describe('the command', () => {
  const softnet = (...args: string[]) =>
    spawnSync(process.execPath, [bin, 'run', ...args], { encoding: 'utf8', cwd: dir })
  test('prints what programs say, and how they ended; captures are what tshark takes for sound', () => {
    const { status, stdout, stderr } = softnet(join(examples, 'pmtu.yaml'), '--json', 'r.json')
    expect([status, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/^a: .*4008 bytes from 10\.3\.0\.2/m)
    expect(stdout).toMatch(/^ok {5}a: ping -c 2 -s 4000 10\.3\.0\.2: ended with 0$/m)
    const json = JSON.parse(readFileSync(join(dir, 'r.json'), 'utf8')) as ScenarioResult
    expect(json.schema).toBe('softnet.scenario/1')
    if (hasTshark) for (const file of ['pmtu-a.pcap', 'pmtu-b.pcap']) expect(complaints(join(dir, file))).toBe('')
  })
  test.runIf(hasTshark)(
    'tshark, told the keys, finds every packet of the tunnel sound, and sees what is inside',
    () => {
      expect(softnet(join(examples, 'ipsec.yaml')).status).toBe(0)
      const file = join(dir, 'ipsec-middle.pcap')
      expect(complaints(file)).toBe('')
      const keys = keysOf('0x00001001', '0x00001002')
      const fields = ['esp.icv_good', 'esp.icv_bad', 'icmp.type', 'udp.dstport', 'ip.src']
      const packets = decrypted(file, keys, fields)
      expect(new Set(packets.map(p => `${p[0]} ${p[1]}`))).toEqual(new Set(['1 0']))
      const [requests, replies] = ['8', '0'].map(type => packets.filter(p => p[2] === type).length)
      expect([requests, replies]).toEqual([4, 4])
      expect(packets.filter(p => p[3] === '5001').length).toBe(10)
      expect(packets[0]![4]).toBe('192.0.2.1,10.1.0.2')
      const wrong = decrypted(file, [{ ...keys[0]!, auth: keys[1]!.auth }, keys[1]!], fields)
      expect(wrong.some(p => p[0] === '0' && p[1] === '1')).toBe(true) // it does look
    },
  )
  test.runIf(hasTshark)('tshark sees what IPComp made shorter, and what it left alone', () => {
    expect(softnet(join(examples, 'ipcomp.yaml')).status).toBe(0)
    const file = join(dir, 'ipcomp-middle.pcap')
    expect(complaints(file)).toBe('')
    const fields = ['esp.icv_good', 'ipcomp.cpi', 'icmp.type', 'udp.length', 'icmp.checksum.status', 'frame.len']
    const packets = decrypted(file, keysOf('0x00002001', '0x00002002'), fields)
    const count = (...fields: string[]): number =>
      packets.filter(p => p.slice(0, fields.length).join() === fields.join()).length
    expect([count('1', '', '8', '', '1'), count('1', '', '0', '', '1')]).toEqual([2, 2])
    expect([count('1', '0x1001', '8', '', '1'), count('1', '0x1002', '0', '', '1')]).toEqual([2, 2])
    expect([count('1', '0x1001', '', '1408'), packets.length]).toEqual([10, 18])
    expect(packets.every(p => Number(p[5]) < 500)).toBe(true) // 1,500 go in
  })
  test('files that programs write appear on this host; tshark takes what tcpdump -w wrote for sound', () => {
    const { status, stdout } = softnet(join(examples, 'tcpdump.yaml'))
    expect([status, stdout]).toEqual([
      0,
      expect.stringContaining('ARP (0x0806), length 42: Request who-has 10.1.0.2 tell'),
    ])
    const file = join(dir, 'echoes.pcap')
    expect(parsePcap(readFileSync(file), file).lengths.length).toBe(8)
    if (!hasTshark) return
    expect(complaints(file)).toBe('')
    const fields = ['-Y', 'icmp', '-T', 'fields', '-e', 'icmp.type', '-e', 'icmp.seq']
    const echoes = spawnSync('tshark', ['-r', file, ...fields], { encoding: 'utf8' }).stdout
    expect(echoes).toBe('8\t1\n0\t1\n8\t2\n0\t2\n')
  })
  test('two hosts that write one file are told so', () => {
    const text = readFileSync(join(examples, 'tcpdump.yaml'), 'utf8').replace(
      'tcpdump -e -c 4',
      'tcpdump -w echoes.pcap -c 4',
    )
    writeFileSync(
      join(dir, 'twice.yaml'),
      text.replace('- { run: arping -c 2', '- tcpdump -c 1 -w echoes.pcap\n      - { run: arping -c 2'),
    )
    const { status, stderr } = softnet('twice.yaml')
    expect([status, stderr]).toEqual([2, expect.stringMatching(/^softnet: .*name the same file: echoes.pcap$/m)])
  })
  test('exit code 1 when a program does not end as expected', () => {
    const text = readFileSync(join(examples, 'ping.yaml'), 'utf8').replace('expect: 1', 'expect: 0')
    writeFileSync(join(dir, 'bad.yaml'), text)
    const { status, stdout } = softnet('bad.yaml')
    expect(status).toBe(1)
    expect(stdout).toMatch(/^FAILED a: ping .*: ended with 1$/m)
  })
  test.each([
    ['x: 1', /^softnet: f\.yaml:1: /],
    [
      'hosts: { a: { interfaces: { eth0: { link: l, address: 10.0.0.1/24 } }, programs: [nothing] } }\nlinks: { l: {} }',
      /l: has one interface/,
    ],
    [
      'hosts:\n  a: { programs: [nothing] }',
      /^softnet: f\.yaml:2: hosts\.a\.programs\.0: there is no program 'nothing'/,
    ],
    [
      'hosts:\n  a:\n    sysctl:\n      net.ipv4.ip_forward: 1\n      net.ipv4.nothing: 1',
      /^softnet: f\.yaml:5: hosts\.a\.sysctl\.net\.ipv4\.nothing: there is no sysctl/,
    ],
    ['hosts:\n  a:\n    gateway: 10.0.0.1', /^softnet: f\.yaml:3: hosts\.a\.gateway: is on no network/],
    [
      'hosts:\n  a:\n    iptables: |\n      *filter\n      -A INPUT -j NOTHING\n      COMMIT\n',
      /^softnet: f\.yaml:5: hosts\.a\.iptables:2: there is no target or chain 'NOTHING'$/m,
    ],
    [
      'hosts: { a: { interfaces: &two { eth0: { link: l, address: [10.0.0.1/24, 10.0.0.1/24] } } },\n b: { interfaces: *two } }\nlinks: { l: }',
      /^softnet: f\.yaml:1: hosts\.[ab]\.interfaces\.eth0: address 10\.0\.0\.1\/24 of eth0 is there already$/m,
    ],
  ])('%j is said in one line', (text, message) => {
    writeFileSync(join(dir, 'f.yaml'), text)
    const { status, stderr } = softnet('f.yaml')
    expect(stderr).toMatch(message)
    expect([status, stderr.trimEnd().split('\n').length]).toEqual([2, 1])
  })
  test('controlled: the first seed that fails is told, and JSON stays JSON', () => {
    writeFileSync(join(dir, 'c.yaml'), 'hosts: { a: { cpus: 2, programs: [{ run: echo hi, expect: 3 }] } }')
    const told = softnet('c.yaml', '--clock', 'controlled', '--schedules', '3', '--seed', '5')
    expect([told.status, told.stdout.match(/^FAILED with.*/gm)]).toEqual([1, ['FAILED with --seed 5']])
    writeFileSync(join(dir, 'c.yaml'), 'hosts: { a: { programs: [echo hi] } }')
    const json = softnet('c.yaml', '--clock', 'controlled', '--schedules', '2', '--json', '-')
    expect([json.status, json.stderr]).toEqual([0, '2 schedules, nothing found\n'])
    expect(JSON.parse(json.stdout)).toMatchObject({ clock: 'controlled', programs: [{ output: 'hi\n' }] })
  })
  test('a file of a program that cannot be written loses nothing else', () => {
    const wire = (k: number) => `interfaces: { eth0: { link: l, address: 10.0.0.${k}/24 } }`
    writeFileSync(
      join(dir, 'w.yaml'),
      `hosts:\n  a: { ${wire(1)}, programs: [tcpdump -c 1 -w nowhere/x arp, tcpdump -c 1 -w there.pcap arp, arping -c 1 10.0.0.2] }\n  b: { ${wire(2)} }\nlinks: { l: }`,
    )
    const { status, stdout, stderr } = softnet('w.yaml', '--json', 'w.json')
    expect([status, stderr]).toEqual([2, 'softnet: cannot write nowhere/x: no such file or folder\n'])
    expect(stdout).toMatch(/^ok {5}a: arping -c 1 10\.0\.0\.2: ended with 0$/m)
    expect(JSON.parse(readFileSync(join(dir, 'w.json'), 'utf8'))).toMatchObject({ schema: 'softnet.scenario/1' })
    expect(parsePcap(readFileSync(join(dir, 'there.pcap')), 'there.pcap').lengths.length).toBe(1)
  })
  test('a file that is not there', () => {
    expect(softnet('nowhere.yaml')).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/nowhere\.yaml: no such file/),
    })
  })
})
