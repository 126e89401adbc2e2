/** The command line as a user meets it: exit codes, one line for what is wrong, files, Ctrl-C. */
import { spawn, spawnSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { readPcap } from '../../src/lab/pcap.js'
import type { TortureResult } from '../../src/lab/torture.js'
import type { ForwardResult, LivelockResult } from '../../src/lab/types.js'
import { pcapOf } from '../helpers/captures.js'
import { counting, fragments, parse, ROUTER, udp, udpFrame } from '../helpers/frames.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const bin = join(root, 'bin/softnet.mjs')
const dir = mkdtempSync(join(tmpdir(), 'softnet-cli-'))
afterAll(() => rmSync(dir, { recursive: true }))
const data = (name: string): string => join(root, 'data', name)

function softnet(...args: string[]): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8', cwd: dir })
  return { code: status, out: stdout, err: stderr }
}

writeFileSync(join(dir, 'cut.pcap'), readFileSync(data('mix.pcap')).subarray(0, 5000))
const eth0 = 'interface eth0 address 10.0.0.1/8 mac 02:00:00:00:00:01\n'
writeFileSync(join(dir, 'network.routes'), `${eth0}route 10.0.0.0/8 via 10.0.0.2\n`)
writeFileSync(
  join(dir, 'many.routes'),
  eth0 + Array.from({ length: 9000 }, (_, k) => `neighbour 10.1.${k >> 8}.${k & 255} mac 02:00:00:00:00:02\n`).join(''),
)
writeFileSync(
  join(dir, 'bad.routes'),
  'interface eth0 address 10.0.0.1/24 mac 02:00:00:00:00:01\nroute 10.0.0.0/40 dev eth0\n',
)

writeFileSync(join(dir, 'mine.pcap'), readFileSync(data('mix.pcap')))
writeFileSync(join(dir, 'mine.json'), readFileSync(data('profiles/modern.json')))
symlinkSync('mine.pcap', join(dir, 'soft.pcap'))
linkSync(join(dir, 'mine.pcap'), join(dir, 'hard.pcap'))

const mine = ['forward', '--in', 'eth0=mine.pcap', '--routes', data('example.routes')]

describe('what is wrong is said in one line, with exit code 2', () => {
  test.each([
    [[], /no verb given/],
    [['frob'], /unknown verb 'frob'/],
    [['livelock', '--frob'], /unknown option '--frob'/],
    [['livelock', '--cpus', '0'], /--cpus 0: must be a whole number from 1 to 32/],
    [['livelock', '--cpus', '33'], /--cpus 33/],
    [['livelock', '--cpus', 'many'], /--cpus many/],
    [['livelock', '--rx', 'magic'], /--rx magic: must be all, or some of interrupt, softnet, napi/],
    [['livelock', '--rates', '50x'], /--rates 50x/],
    [['livelock', '--pcap', 'nowhere.pcap'], /nowhere.pcap: no such file or folder/],
    [['livelock', '--pcap', 'cut.pcap'], /cut.pcap: packet \d+: truncated/],
    [['livelock', '--json', 'no/such/folder/x.json'], /cannot write no\/such\/folder\/x.json/],
    [['livelock', '--json', 'mine.pcap/x.json'], /cannot write mine.pcap\/x.json: a part of the path is not a folder/],
    [['livelock', '--json', `${'n'.repeat(300)}.json`], /the name is too long/],
    [['livelock', '--json', ''], /--json: the name of the file is empty/],
    [['livelock', '--pcap', ''], /--pcap: the name of the file is empty/],
    [['livelock', '--burst', '5'], /--burst 5: must be packets@rate such as 32@1M/],
    [['livelock', '--sizes', '59'], /--sizes 59: must be imix, or sizes from 60 to 1514/],
    [['livelock', '--affinity', 'cpu1'], /--affinity cpu1: must be one of spread, cpu0/],
    [['livelock', '--pcap', 'mine.pcap', '--json', './mine.pcap'], /--json .*: is read and written in one run/],
    [['livelock', '--pcap', 'mine.pcap', '--csv', 'soft.pcap'], /--csv .*: is read and written in one run/],
    [['livelock', '--pcap', 'soft.pcap', '--trace', 'hard.pcap'], /--trace .*: is read and written in one run/],
    [['livelock', '--profile', 'mine.json', '--json', 'mine.json'], /--json mine.json: is read and written in one run/],
    [['paper', '--profile', 'mine.json', '--csv', 'mine.json'], /--csv mine.json: is read and written in one run/],
    [['scale', '--profile', 'mine.json', '--html', 'mine.json'], /--html mine.json: is read and written in one run/],
    [['livelock', '--csv', 'x', '--html', `${dir}/x`], /--csv and --html name the same file/],
    [[...mine, '--out', 'eth1=hard.pcap'], /--out eth1 hard.pcap: is read and written in one run/],
    [[...mine, '--json', 'soft.pcap'], /--json soft.pcap: is read and written in one run/],
    [[...mine, '--out', 'eth0=x', '--out', 'eth1=./x'], /--out eth0 and --out eth1 name the same file/],
    [['livelock', '--rx', 'polled', '--quota', '0'], /--quota 0: must be a whole number from 1 to 4096/],
    [['livelock', '--cycle-limit', '101'], /--cycle-limit 101: must be a whole number from 1 to 100/],
    [['livelock', '--clock', 'virtual', '--profile', 'nowhere'], /--profile nowhere: no such file or folder/],
    [['paper', '--figures', '6-2'], /--figures 6-2: must be some of 6-1, 6-3/],
    [['explore', 'mine.json', '--memory', 'rmo'], /--memory rmo: must be one of sc, tso, pso/],
    [['explore', 'mine.json', '--memory', 'tso', '--no-instrument'], /memory 'tso': plain stores must be seen/],
    [['explore', 'mine.json', '--kernel', 'clh'], /--kernel clh: must be one of tas, ticket, mcs/],
    [['explore', 'mine.json', '--kernel', '--megabytes', '8'], /--megabytes 8: must be a whole number from 16 to 128/],
    [['explore', 'mine.json', '--megabytes', '16'], /--megabytes: is the RAM of a machine, .* only with --kernel/],
    [['torture'], /missing required argument 'what'/],
    [['torture', 'frob'], /torture frob: must be one of spin, .*, timer/],
    [['torture', 'rcu', '--kind', 'mcs'], /--kind mcs: must be one of rcu, rcu_bh, rcu_sync, busted for rcu/],
    [['torture', 'spin', '--kind', 'sound'], /--kind sound: must be one of tas, ticket, mcs, busted for spin/],
    [['torture', 'all', '--seconds', '0'], /--seconds 0: must be a whole number from 1/],
    [['torture', 'timer', '--json', 'no/such/folder/x.json'], /cannot write no\/such\/folder\/x.json/],
    [['scale', '--cpus', '2,33'], /--cpus 33: must be whole numbers from 1 to 32/],
    [[...mine, '--clock', 'sundial'], /--clock sundial: must be one of real, virtual/],
    [[...mine, '--clock', 'virtual', '--profile', 'nowhere'], /--profile nowhere: no such file or folder/],
    [[...mine, '--clock', 'virtual', '--profile', data('steady.pcap')], /steady.pcap: is no JSON/],
    [[...mine, '--profile', 'mine.json', '--json', 'mine.json'], /--json mine.json: is read and written in one run/],
    [['calibrate', '--seconds', '0'], /--seconds 0: must be a whole number from 1 to 3600/],
    [['calibrate', '--seed', 'x'], /--seed x: must be a whole number/],
    [['calibrate', '--frob'], /unknown option '--frob'/],
    [['calibrate', 'mine.json'], /too many arguments/],
    [['calibrate', '--out', ''], /--out: the name of the file is empty/],
    [['calibrate', '--out', 'no/such/folder/x.json'], /cannot write no\/such\/folder\/x.json/],
    [['calibrate', '--out', 'x', '--json', './x'], /--out and --json name the same file/],
    [['forward', '--timing', 'x0'], /--timing x0: must be flat, original, or a speed/],
    [['forward'], /--in: at least one IFACE=FILE is needed/],
    [['forward', '--in', 'eth0'], /must be IFACE=FILE/],
    [['forward', '--in', `eth0=${data('mix.pcap')}`], /--routes: a file is needed/],
    [
      ['forward', '--in', `eth0=${data('mix.pcap')}`, '--routes', 'bad.routes'],
      /bad.routes:2: '10.0.0.0\/40': the prefix/,
    ],
    [
      ['forward', '--in', `eth0=${data('mix.pcap')}`, '--routes', 'network.routes'],
      /network.routes:2: route 10.0.0.0\/8 is the network of eth0/,
    ],
    [
      ['forward', '--in', `eth0=${data('mix.pcap')}`, '--routes', 'many.routes'],
      /many.routes:8194: more than 8192 neighbours/,
    ],
    [
      ['forward', '--in', `ppp0=${data('mix.pcap')}`, '--routes', data('example.routes')],
      /--in ppp0: .* no such interface/,
    ],
    [['forward', '--in', 'eth0=cut.pcap', '--routes', data('example.routes')], /cut.pcap: packet \d+: truncated/],
  ])('softnet %j', (args, message) => {
    const { code, out, err } = softnet(...args)
    expect(err).toMatch(message)
    expect(err.trimEnd().split('\n')).toHaveLength(1)
    expect([code, out]).toEqual([2, ''])
  })
})

describe('torture', () => {
  test.each([
    ['seqlock', 'mcs', 0, /^seqlock-torture: Reads: {2}Total: \d+ .* Fail: 0$/m],
    ['rcu', 'rcu_bh', 0, /^rcu-torture: Reader Pipe: {2}\d+ \d+ 0 0 0 0 0 0 0 0 0$/m],
    ['rcu', 'busted', 1, /^rcu-torture: !!! Reader Pipe:/m],
    ['rwlock', 'busted', 1, /^!!! rwlock: holders beside each other: \d+$/m],
  ] as const)('%s %s', (what, kind, expected, line) => {
    const { code, out, err } = softnet(
      'torture',
      what,
      '--kind',
      kind,
      '--seconds',
      '1',
      '--cpus',
      '2',
      '--json',
      't.json',
    )
    expect([code, err]).toEqual([expected, ''])
    expect(out).toMatch(line)
    const { runs } = JSON.parse(readFileSync(join(dir, 't.json'), 'utf8')) as TortureResult
    expect(runs).toHaveLength(1)
    expect(runs[0]!.failures.length > 0).toBe(expected === 1)
  })
})

test('the package ships what it needs, and no maps of sources that it does not ship', () => {
  const { stdout } = spawnSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: root,
    encoding: 'utf8',
  })
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }]
  const paths = files.map(f => f.path)
  for (const path of ['bin/softnet.mjs', 'dist/src/lab/cli.js', 'dist/workers/cpu.js', 'data/example.routes'])
    expect(paths).toContain(path)
  expect(paths.filter(path => path.endsWith('.map'))).toEqual([])
})

describe('help', () => {
  test.each(['--version', '-V'])('%s', flag => {
    expect(softnet(flag).out).toMatch(/^\d+\.\d+\.\d+\n$/)
  })
  test.each([['--help'], ['-h'], ['help']])('%s', flag => {
    const { code, out } = softnet(flag)
    expect([code, out.split('\n')[0]]).toEqual([0, 'Usage: softnet <verb> [options]'])
  })
  test.each(['livelock', 'forward', 'paper', 'scale', 'calibrate'])(
    'of %s, its defaults as a user would write them',
    verb => {
      const { code, out } = softnet('help', verb)
      expect([code, out.split('\n')[0]]).toEqual([0, `Usage: softnet ${verb} [options]`])
      expect(out).toMatch(/\(default:/)
      expect(out).not.toMatch(/default:\s*["[{]/)
      for (const flag of ['-h', '--help']) expect(softnet(verb, flag)).toEqual({ code, out, err: '' })
    },
  )
  test('of a verb that does not exist', () => {
    expect(softnet('help', 'frob')).toEqual({
      code: 2,
      out: '',
      err: 'softnet: help: there is no such verb (softnet --help)\n',
    })
  })
})

describe('explore', () => {
  const scenario = (name: string): string => join(root, 'dist/test/model', `${name}.js`)

  test('with CPUs of a machine as actors', () => {
    const { code, out } = softnet(
      ...['explore', scenario('kernel/spinlock'), '--strategy', 'exhaustive', '--args', '{"cpus":2,"spins":1}'],
      ...['--kernel', 'mcs', '--megabytes', '32', '--json', '-'],
    )
    expect(code).toBe(0)
    const mcs = JSON.parse(out)
    expect(mcs).toMatchObject({ exhausted: true, findings: [] })
    const tas = JSON.parse(
      softnet(
        ...['explore', '--strategy', 'exhaustive', '--args', '{"cpus":2,"spins":1}', '--json', '-'],
        ...[scenario('kernel/spinlock'), '--kernel'],
      ).out,
    )
    expect(tas).toMatchObject({ exhausted: true, findings: [] })
    // Of another lock there are other orders.
    expect(tas.schedules).not.toBe(mcs.schedules)
  })
})

describe('livelock', () => {
  test('writes its result in every format, and the JSON is what it says it is', () => {
    const { code, out, err } = softnet(
      ...['livelock', '--rx', 'interrupt,napi', '--rates', '20k,200k', '--duration', '100', '--cpus', '2'],
      ...['--json', 'r.json', '--csv', 'r.csv', '--html', 'r.html', '--trace', 'r.trace.json'],
    )
    expect(code).toBe(0)
    expect(err).not.toContain('panic')
    expect(out).toMatch(/napi/)
    const result = JSON.parse(readFileSync(join(dir, 'r.json'), 'utf8'))
    expect(result.schema).toBe('softnet.livelock/1')
    expect(result.series.map((x: { rx: string }) => x.rx)).toEqual(['interrupt', 'napi'])
    for (const series of result.series) {
      expect(series.mlfrr_pps).toBeGreaterThan(0)
      expect(series.points).toHaveLength(2)
      for (const p of series.points) {
        expect(Object.keys(p)).toEqual(
          expect.arrayContaining([
            'offered_pps',
            'received_pps',
            'delivered_pps',
            'irqs',
            'polls',
            'time_squeeze',
            'drops',
          ]),
        )
        expect(p.cpu).toHaveLength(2)
        for (const c of p.cpu) {
          const sum = c.hardirq + c.softirq + c.system + c.user + c.idle
          expect(sum).toBeCloseTo(1, 1)
        }
        expect(p.user_share).toBeGreaterThanOrEqual(0)
        expect(p.latency_us).toHaveProperty('p999')
      }
    }
    expect(readFileSync(join(dir, 'r.csv'), 'utf8').trimEnd().split('\n')).toHaveLength(5)
    const html = readFileSync(join(dir, 'r.html'), 'utf8')
    expect(html).toContain('uPlot')
    expect(html).not.toMatch(/src="http|href="http/)
    const trace = JSON.parse(readFileSync(join(dir, 'r.trace.json'), 'utf8'))
    const events: { ph: string; cat: string; tid: number; pid: number; ts: number }[] = trace.traceEvents
    for (const cat of ['hardirq', 'softirq', 'process']) expect(events.some(e => e.cat === cat)).toBe(true)
    for (const tid of [0, 1]) {
      const slices = events.filter(e => e.pid === 1 && e.tid === tid && 'BE'.includes(e.ph))
      let depth = 0
      for (const [k, e] of slices.entries()) {
        depth += e.ph === 'B' ? 1 : -1
        expect(depth).toBeGreaterThanOrEqual(0)
        if (k > 0) expect(e.ts).toBeGreaterThanOrEqual(slices[k - 1]!.ts)
      }
      expect(depth).toBe(0)
    }
  })
  test('offers a capture', () => {
    const { code } = softnet(
      'livelock',
      '--rx',
      'napi',
      '--rates',
      '20k',
      '--duration',
      '100',
      '--pcap',
      data('steady.pcap'),
    )
    expect(code).toBe(0)
  })
  test('shapes its load', () => {
    const shape = '--arrivals burst --burst 8@500k --sizes imix --flows 64 --destinations 3'.split(' ')
    const nic = '--itr 200000 --itr-frames 32 --affinity cpu0 --cpus 2 --queues 2'.split(' ')
    const run = ['livelock', '--rx', 'softnet', '--rates', '10k', '--duration', '100', '--json', 'shape.json']
    expect(softnet(...run, ...shape, ...nic).code).toBe(0)
    const { config, series } = JSON.parse(readFileSync(join(dir, 'shape.json'), 'utf8')) as LivelockResult
    expect(config).toMatchObject({ arrivals: 'burst', destinations: 3, itr_ns: 200_000, affinity: 'cpu0' })
    expect(series[0]!.points[0]!.cpu[1]!.hardirq).toBeLessThan(0.05) // the clock alone
  })
  test('standard output as a file among others; one that is full', () => {
    const run = ['livelock', '--rx', 'napi', '--rates', '10k', '--duration', '50'].join(' ')
    const shell = (line: string): { status: number | null; stderr: string } =>
      spawnSync('sh', ['-c', line, process.execPath, bin], { cwd: dir, encoding: 'utf8' })
    expect(shell(`"$0" "$1" ${run} --csv /dev/stdout > both.txt`).status).toBe(0)
    expect(readFileSync(join(dir, 'both.txt'), 'utf8')).toMatch(/^rx,cpus,.*\npolling \(NAPI\)/s)
    expect(shell(`"$0" "$1" ${run} > /dev/full`)).toMatchObject({
      status: 1,
      stderr: 'softnet: cannot write to standard output: no space left on the disk\n',
    })
    expect(shell('"$0" "$1" frob 2>&-').status).toBe(2)
    expect(shell('{ sleep 0.5; "$0" "$1" frob; echo $? > code; } 2>&1 | true; sleep 2; exit $(cat code)').status).toBe(
      2,
    )
  })
  test.each([
    ['SIGINT', 130],
    ['SIGQUIT', 131],
  ] as const)('%s: ends soon, with %i, and leaves no file', async (signal, expected) => {
    const child = spawn(process.execPath, [bin, 'livelock', '--json', 'never.json', '--trace', 'never.trace'], {
      cwd: dir,
    })
    const err: Buffer[] = []
    child.stderr.on('data', (b: Buffer) => err.push(b))
    await new Promise(resolve => setTimeout(resolve, 1500))
    child.kill(signal)
    const code = await new Promise(resolve => child.on('exit', resolve))
    expect(code).toBe(expected)
    expect(Buffer.concat(err).toString()).toMatch(/interrupted/)
    expect(readdirSync(dir).filter(f => f.includes('never'))).toEqual([])
  })
})

test('an input that comes through a pipe', () => {
  const { status, stderr } = spawnSync(
    'sh',
    [
      '-c',
      'cat "$1" | "$0" "$2" forward --in eth0=/dev/stdin --routes "$3" --json piped.json',
      process.execPath,
      data('mix.pcap'),
      bin,
      data('example.routes'),
    ],
    { cwd: dir, encoding: 'utf8' },
  )
  expect([status, stderr]).toEqual([0, ''])
  expect(JSON.parse(readFileSync(join(dir, 'piped.json'), 'utf8'))).toMatchObject({ received: 164 })
})

test.each([
  ['livelock', '--pcap', 'never.fifo'],
  ['forward', '--in', 'eth0=never.fifo', '--routes', data('example.routes')],
])('Ctrl-C while %s waits for its input', async (...args) => {
  if (!existsSync(join(dir, 'never.fifo'))) spawnSync('mkfifo', [join(dir, 'never.fifo')])
  const child = spawn(process.execPath, [bin, ...args], { cwd: dir })
  const started = Date.now()
  setTimeout(() => child.kill('SIGTERM'), 1000)
  expect(await new Promise(resolve => child.on('exit', resolve))).toBe(143)
  expect(Date.now() - started).toBeLessThan(4500)
})

describe('forward', () => {
  const args = (cpus: number, out: string): string[] => [
    ...['forward', '--in', `eth0=${data('mix.pcap')}`, '--routes', data('example.routes'), '--cpus', String(cpus)],
    ...['--out', `eth0=${out}0.pcap`, '--out', `eth1=${out}1.pcap`, '--out', `eth2=${out}2.pcap`, '--json', '-'],
  ]
  test('accounts for every frame, the same on any number of CPUs', () => {
    const results = [1, 2, 8, 32].map(cpus => {
      const { code, out } = softnet(...args(cpus, `cpus${cpus}-`))
      expect(code).toBe(0)
      return JSON.parse(out)
    })
    const [first] = results
    const dropped = Object.values<number>(first.dropped).reduce((a, b) => a + b, 0)
    expect(first.received).toBe(first.forwarded + first.delivered + dropped)
    expect(first).toMatchObject({ received: 164, forwarded: 135, delivered: 3, icmp_sent: 10 })
    for (const r of results) expect(r).toEqual(first)
  })
  /** The frames of one capture in one way, and what came out of eth1. */
  async function convey(
    name: string,
    frames: Uint8Array[],
    ...flags: string[]
  ): Promise<{ result: ForwardResult; out: Uint8Array[] }> {
    const file = (what: string): string => join(dir, `${name}-${what}`)
    writeFileSync(file('in.pcap'), pcapOf(frames))
    const ports = ['--in', `eth0=${file('in.pcap')}`, '--out', `eth1=${file('out.pcap')}`]
    const { code, err } = softnet(
      'forward',
      ...ports,
      '--routes',
      data('example.routes'),
      '--json',
      file('json'),
      ...flags,
    )
    expect([code, err.replace(/^softnet: warning: .*\n/, '')]).toEqual([0, ''])
    const { data: bytes, offsets, lengths } = await readPcap(file('out.pcap'))
    const out = [...offsets].map((at, k) => bytes.subarray(at, at + lengths[k]!))
    return { result: JSON.parse(readFileSync(file('json'), 'utf8')) as ForwardResult, out }
  }
  const flow = { src: '10.1.0.2', dst: '10.2.0.2', to: ROUTER, from: '02:00:00:00:01:02' }
  test.each(['interrupt', 'softnet', 'napi'])(
    '%s: a long capture goes through whole, as fast as the router takes it',
    async rx => {
      const many = Array.from({ length: 20_000 }, (_, k) => udpFrame({ ...flow, sport: 1024 + (k % 500), id: k }))
      for (const cpus of ['1', '2']) {
        const { result, out } = await convey(`long-${rx}`, many, '--rx', rx, '--cpus', cpus)
        expect(result).toMatchObject({ received: 20_000, forwarded: 20_000, dropped: {} })
        expect(out).toHaveLength(20_000)
      }
    },
  )
  test.each([1, 4])('jumbo frames, on %i CPUs with a queue each on three ports', async cpus => {
    const routes = join(dir, `jumbo-${cpus}.routes`)
    const lines = [1, 2, 3].map(k => `interface eth${k - 1} address 10.${k}.0.1/24 mac 02:00:00:00:00:0${k} mtu 9000`)
    writeFileSync(routes, [...lines, 'neighbour 10.2.0.2 mac 02:00:00:00:02:02'].join('\n'))
    const sizes = [18, 1400, 1702, 1703, 4000, 8972]
    const frames = Array.from({ length: 3000 }, (_, k) =>
      udpFrame({ ...flow, sport: 1024 + (k % 64), id: k }, counting(sizes[k % 6]!)),
    )
    const { result, out } = await convey(`jumbo-${cpus}`, frames, '--routes', routes, '--cpus', String(cpus))
    expect(result).toMatchObject({ received: 3000, forwarded: 3000, dropped: {} })
    expect(out.map(f => f.length).sort((a, b) => a - b)).toEqual(frames.map(f => f.length).sort((a, b) => a - b))
  })
  test('at its original speed a capture takes its time, scaled it takes less', { retry: 3 }, async () => {
    const slow = Array.from({ length: 8 }, (_, k) => udpFrame({ ...flow, id: k })) // 100 us apart
    for (const [timing, gap] of [
      ['original', 0],
      ['x0.001', 100_000_000],
    ] as const) {
      const { out } = await convey(`timing-${timing}`, slow, '--timing', timing)
      expect(out).toHaveLength(8)
      const { times } = await readPcap(join(dir, `timing-${timing}-out.pcap`))
      expect(times[7]).toBeGreaterThan(5 * gap) // a late first frame shortens the whole, a late last one stretches it
    }
  })
  test('at their original speed captures keep the time between them', { retry: 3 }, async () => {
    const other = { ...flow, src: '10.2.0.2', dst: '10.1.0.2', to: '02:00:00:00:00:02', from: '02:00:00:00:02:02' }
    writeFileSync(join(dir, 'first.pcap'), pcapOf([udpFrame(flow)], 5e9))
    writeFileSync(join(dir, 'second.pcap'), pcapOf([udpFrame(other)], 5.5e9))
    const ports = [
      '--in',
      'eth0=first.pcap',
      '--in',
      'eth1=second.pcap',
      '--out',
      'eth0=0.pcap',
      '--out',
      'eth1=1.pcap',
    ]
    const { code } = softnet('forward', ...ports, '--routes', data('example.routes'), '--timing', 'original')
    expect(code).toBe(0)
    const at = async (name: string): Promise<bigint> => (await readPcap(join(dir, name))).start!
    const between = Number((await at('0.pcap')) - (await at('1.pcap'))) / 1e6
    expect(between).toBeGreaterThan(450)
    expect(between).toBeLessThan(550)
  })
  test('says which captures hold only the beginning of their frames', () => {
    const bytes = Buffer.from(pcapOf([udpFrame(flow), udpFrame(flow)]))
    bytes.writeUInt32LE(1500, 24 + 12)
    writeFileSync(join(dir, 'snap.pcap'), bytes)
    const { code, err } = softnet('forward', '--in', 'eth0=snap.pcap', '--routes', data('example.routes'))
    expect([code, err]).toEqual([0, 'softnet: snap.pcap: 1 of 2 frames hold only their beginning\n'])
  })
  test('a flow of whole packets and fragments keeps its order on several CPUs', async () => {
    const mixed = Array.from({ length: 3000 }, (_, k) =>
      k % 2 === 0 ? [udpFrame({ ...flow, id: k })] : fragments(udp(flow, counting(100)), { ...flow, id: k }, 76),
    ).flat()
    const { out } = await convey('order', mixed, '--cpus', '4')
    expect(out).toHaveLength(mixed.length)
    const ids = out.map(f => parse(f).id)
    expect(ids).toEqual([...ids].sort((a, b) => a - b))
  })
  test('the disk is full: one line, exit code 1, no thread and no file left', () => {
    const { code, err } = softnet(
      'forward',
      '--in',
      `eth0=${data('mix.pcap')}`,
      '--out',
      'eth1=/dev/full',
      '--routes',
      data('example.routes'),
    )
    expect(code).toBe(1)
    expect(err).toBe('softnet: cannot write /dev/full: no space left on the disk\n')
  })
  test('a JSON that cannot be written: no capture appears either', () => {
    const { code, err } = softnet(...mine, '--out', 'eth1=late.pcap', '--json', '/dev/full')
    expect([code, err]).toEqual([1, 'softnet: cannot write /dev/full: no space left on the disk\n'])
    expect(existsSync(join(dir, 'late.pcap'))).toBe(false)
  })
  const tshark = spawnSync('tshark', ['--version']).status === 0
  test.runIf(tshark)('tshark finds no wrong checksum and nothing malformed in what was sent', () => {
    softnet(...args(2, 'oracle'))
    for (const port of [0, 1, 2]) {
      const file = join(dir, `oracle${port}.pcap`)
      expect(existsSync(file)).toBe(true)
      const checks = ['ip', 'udp', 'tcp'].flatMap(p => ['-o', `${p}.check_checksum:TRUE`])
      const bad =
        'ip.checksum.status==0 || udp.checksum.status==0 || tcp.checksum.status==0 || icmp.checksum.status==0 || _ws.malformed'
      const { stdout } = spawnSync('tshark', ['-r', file, ...checks, '-Y', bad], { encoding: 'utf8' })
      expect(stdout).toBe('')
    }
  })
})
