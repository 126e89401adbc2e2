/** The command line as a user meets it: exit codes, files, Ctrl-C. What is refused is in refusals.test.ts. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readPcap } from '../../src/lab/pcap.js'
import type { TortureResult } from '../../src/lab/torture.js'
import type { ForwardResult, LivelockResult } from '../../src/lab/types.js'
import { pcapOf } from '../helpers/captures.js'
import { bin, data, dir, softnet } from '../helpers/commandLine.js'
import { counting, fragments, parse, ROUTER, udp, udpFrame } from '../helpers/frames.js'

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
    const { code, err } = softnet(
      ...['forward', '--in', `eth0=${data('mix.pcap')}`, '--routes', data('example.routes')],
      ...['--out', 'eth1=late.pcap', '--json', '/dev/full'],
    )
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
