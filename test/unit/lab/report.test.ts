/** The reports of a made-up result: what a reader sees, on a page, in a terminal, in a pipe. */
import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import { configRecord, hostInfo, livelockDefaults } from '../../../src/lab/config.js'
import { livelockHtml } from '../../../src/lab/report/html.js'
import { livelockReport, lookOf } from '../../../src/lab/report/terminal.js'
import type { LivelockPoint, LivelockResult, RxArch } from '../../../src/lab/types.js'

function point(offered: number, delivered: number, hardirq: number): LivelockPoint {
  const cpu = { hardirq, softirq: 0.2, system: 0, user: 0.8 - hardirq, idle: 0 }
  return {
    offered_pps: offered,
    received_pps: delivered,
    delivered_pps: delivered,
    irqs: 12_345,
    polls: 678,
    time_squeeze: 9,
    drops: delivered < offered ? { nic_ring_full: 26_058, ipintrq_full: 25_207 } : {},
    cpu: [cpu, cpu],
    user_share: cpu.user,
    latency_us: { p50: 10.5, p99: 100, p999: 1000 },
  }
}

/** A result in which interrupts livelock at a tenth of what polling bears. */
function result(): LivelockResult {
  const series = (rx: RxArch, mlfrr: number, points: LivelockPoint[]): LivelockResult['series'][number] => ({
    rx,
    cpus: 2,
    mlfrr_pps: mlfrr,
    livelock_pps: rx === 'interrupt' ? 197_000 : null,
    points,
  })
  return {
    schema: 'softnet.livelock/1',
    host: hostInfo(),
    seed: 1,
    config: configRecord({ ...livelockDefaults(), cpus: 2 }),
    series: [
      series('interrupt', 98_400, [
        point(20_000, 20_000, 0.1),
        point(98_400, 98_300, 0.5),
        point(197_000, 380, 0.8),
        point(394_000, 0, 0.8),
      ]),
      series('napi', 975_000, [
        point(195_000, 195_000, 0.1),
        point(975_000, 958_000, 0.3),
        point(3_900_000, 1_771_000, 0.1),
      ]),
    ],
    host_shares: [
      [1, 1, 1, 1],
      [1, 1, 0.5],
    ],
  }
}

interface Line {
  label: string
  stroke?: string
  fill?: string
  value(u: object, v: number | undefined, i: number, k: number): string
}
interface Chart {
  opts: { title: string; series: Line[]; scales: { y: { range(u: object, min: number, max: number): number[] } } }
  data: number[][]
}

/** Runs the page's script with a uPlot that only writes down what it is given. */
function charts(html: string): Chart[] {
  const drawn: Chart[] = []
  const json = /<script type="application\/json" id="result">([^<]*)<\/script>/.exec(html)![1]
  const script = /<script>\n(const result =.*?)<\/script>/s.exec(html)![1]!
  const element = { append: () => {}, clientWidth: 1000, className: '', textContent: json }
  runInNewContext(script, {
    document: { getElementById: () => element, createElement: () => element, body: element },
    matchMedia: () => ({ matches: false }),
    uPlot: function uPlot(opts: Chart['opts'], data: number[][]) {
      drawn.push({ opts, data })
    },
  })
  return drawn
}

describe('the report', () => {
  const lines = (width: number): string[] => livelockReport(result(), { width, color: false }).split('\n')
  test.each([60, 80, 100, 132])('fits %i columns with all of its columns', width => {
    for (const line of lines(width)) expect([line, line.length <= width]).toEqual([line, true])
    for (const word of ['offered', 'squeeze', 'hi/si/sy/us/id %', 'p50/99/99.9 us', 'drops', '10.5/100/1000'])
      expect(lines(width).join('\n')).toContain(word)
  })
  test('a wide terminal gets one line for each point', () => {
    expect(lines(160).filter(l => l.includes('1771'))).toHaveLength(3) // and the top of the chart, and the verdict
  })
  test('curves can be told apart without colours, and the collapse takes its share of the axis', () => {
    const plot = lines(80).filter(l => /[┤┼]/.test(l))
    const columns = (letter: string): number => {
      const at = plot.flatMap(l => [...l.slice(9)].flatMap((c, x) => (c === letter ? [x] : [])))
      return Math.max(...at) - Math.min(...at)
    }
    expect(columns('i')).toBeGreaterThan(30)
    expect(columns('n')).toBeGreaterThan(30)
    expect(plot.filter(l => l.includes('i')).length).toBeGreaterThan(8)
    expect(plot.at(-1)).toMatch(/^ +<0.10 ┼.*i/)
    expect(plot.join('\n')).not.toContain('-0')
    expect(lines(80).find(l => /^ +20\.0 .* 3900$/.test(l))).toMatch(/ 100 .* 1000 /)
  })
  test('width and colours are the terminal’s and the user’s', () => {
    expect(lookOf({ isTTY: true, columns: 100 }, {})).toEqual({ width: 100, color: true })
    expect(lookOf({ isTTY: true, columns: 100 }, { NO_COLOR: '1' }).color).toBe(false)
    expect(lookOf({}, {})).toEqual({ width: 80, color: false })
    expect(lookOf({}, { COLUMNS: '132' }).width).toBe(132)
    expect(livelockReport(result(), { width: 80, color: true })).toContain('\x1b[31m')
  })
  test('nothing delivered, nothing found: still a report', () => {
    const r = result()
    r.series = [{ ...r.series[0]!, mlfrr_pps: 0, points: [point(1000, 0, 0.1)] }]
    r.host_shares = [[1]]
    expect(livelockReport(r, { width: 80, color: false })).toContain('interrupt: no loss-free rate found')
  })
})

describe('the page', () => {
  const html = livelockHtml(result())
  const drawn = charts(html)
  test('colours are colours', () => {
    const used = drawn.flatMap(c => c.opts.series.flatMap(s => [s.stroke, s.fill])).filter(Boolean)
    expect(used.length).toBeGreaterThan(20)
    for (const color of used) expect(color).toMatch(/^(#[0-9a-f]{6}([0-9a-f]{2})?|hsl\(\d+ 70% 45%\))$/)
  })
  test('a stacked chart says the share itself, every axis begins at 0', () => {
    const stacked = drawn.find(c => c.opts.title.startsWith('CPU time'))!
    const shown = stacked.opts.series.slice(1).map((s, k) => s.value({}, stacked.data[k + 1]![1], k + 1, 1))
    const names = stacked.opts.series.slice(1).map(s => s.label)
    expect(Object.fromEntries(names.map((name, k) => [name, shown[k]]))).toEqual({
      ...{ hardirq: '50', softirq: '20', system: '0', user: '30', idle: '0' },
    })
    for (const { opts } of drawn) expect(opts.scales.y.range({}, 40, 100)[0]).toBe(0)
  })
  test('says how many CPUs, and heads text like text', () => {
    expect(html).toContain('2 CPUs, tas locks')
    expect(html).toContain('<th class="text">why</th>')
  })
})
