/** The command line as a user meets it, where no machine runs: one line for what is wrong, help, what the package holds. */
import { spawnSync } from 'node:child_process'
import { linkSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { data, dir, root, softnet } from '../helpers/commandLine.js'

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
