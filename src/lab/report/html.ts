/** html.ts - one self-contained page with interactive charts; uPlot is inlined from the installed package. */
import type { LivelockResult } from '../types.js'
import { ARCH_NAMES, kept, kpps, peak, percent, reason } from './format.js'
import { embedJson, escapeHtml, uplotFile } from './page.js'

const STYLE = `
:root { color-scheme: light dark; --line: #8886 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .7em; text-align: right; border-bottom: 1px solid var(--line) }
td:first-child, th:first-child, .text { text-align: left }
.chart { margin: 1.5em 0 2.5em } .u-legend { text-align: left }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd } .u-over, .u-title { color: #ddd } }
`

/** The script of the page: draws from the embedded result. `own`: what the legend shows of a series that is drawn stacked. */
const SCRIPT = `
const result = JSON.parse(document.getElementById('result').textContent)
const dark = matchMedia('(prefers-color-scheme: dark)').matches
const ink = dark ? '#ccc' : '#333', grid = dark ? '#8883' : '#0001'
const colors = { interrupt: '#dd3333', softnet: '#dd9900', napi: '#22aa22', polled: '#3366cc' }
const axis = label => ({ label, stroke: ink, grid: { stroke: grid }, ticks: { stroke: grid } })
const kpps = v => v == null ? '-' : (v / 1000).toFixed(1)
function draw(title, x, series, y, fmt) {
  const box = document.createElement('div'); box.className = 'chart'
  document.getElementById('charts').append(box)
  const opts = { title, width: Math.min(1040, document.body.clientWidth - 20), height: 340,
    scales: { x: { time: false }, y: { range: (u, min, max) => [0, max > 0 ? max * 1.05 : 1] } },
    axes: [{ ...axis('offered load, kpps'), values: (u, v) => v.map(n => n / 1000) }, { ...axis(y), size: 70, values: (u, v) => v.map(fmt) }],
    series: [{ label: 'offered kpps', value: (u, v) => kpps(v) }, ...series.map(s => ({ label: s.label, stroke: s.color, fill: s.fill, width: 2, spanGaps: true, value: (u, v, i, k) => { const own = k == null ? null : (s.own ?? s.data)[k]; return own == null ? '-' : fmt(own) } }))] }
  new uPlot(opts, [x, ...series.map(s => s.data)], box)
}
function over(pick) {
  const x = [...new Set(result.series.flatMap(s => s.points.map(p => p.offered_pps)))].sort((a, b) => a - b)
  return [x, result.series.map(s => ({ label: s.rx, color: colors[s.rx], data: x.map(v => { const p = s.points.find(p => p.offered_pps === v); return p ? pick(p) : null }) }))]
}
{ const [x, s] = over(p => p.delivered_pps); draw('Delivered', x, s, 'kpps', v => (v / 1000).toFixed(0)) }
{ const [x, s] = over(p => p.user_share * 100); draw('Left to the user process', x, s, '%', v => v.toFixed(0)) }
{ const [x, s] = over(p => p.latency_us.p99); draw('Latency from wire to wire, 99th percentile', x, s, 'us', v => v.toFixed(0)) }
for (const s of result.series) {
  const x = s.points.map(p => p.offered_pps)
  const kinds = [['hardirq', '#dd3333'], ['softirq', '#3366cc'], ['system', '#888888'], ['user', '#22aa22'], ['idle', '#bbbbbb']]
  const share = (p, k) => p.cpu.reduce((n, c) => n + c[k], 0) / p.cpu.length * 100
  const stacked = kinds.map(([k, color], i) => ({ label: k, color, fill: color + '55', own: s.points.map(p => share(p, k)),
    data: s.points.map(p => kinds.slice(0, i + 1).reduce((n, [q]) => n + share(p, q), 0)) })).reverse()
  draw('CPU time by context, stacked: ' + s.rx, x, stacked, '%', v => v.toFixed(0))
  const reasons = [...new Set(s.points.flatMap(p => Object.keys(p.drops)))]
  if (reasons.length) draw('Drops in each point: ' + s.rx, x, reasons.map((r, i) => ({ label: r, color: 'hsl(' + i * 67 + ' 70% 45%)', data: s.points.map(p => p.drops[r] ?? 0) })), 'packets', v => v.toFixed(0))
}
`

function verdictTable(result: LivelockResult): string {
  const rows = result.series.map(
    s =>
      `<tr><td>${escapeHtml(ARCH_NAMES[s.rx])}</td><td>${s.cpus}</td><td>${kpps(s.mlfrr_pps)}</td><td>${kpps(peak(s))}</td>` +
      `<td>${s.livelock_pps === null ? 'none' : kpps(s.livelock_pps)}</td><td>${percent(kept(s))} %</td><td class="text">${escapeHtml(reason(s))}</td></tr>`,
  )
  return (
    '<table><tr><th>receive architecture</th><th>CPUs</th><th>loss-free kpps</th><th>peak kpps</th><th>livelock from kpps</th>' +
    `<th>kept at the highest load</th><th class="text">why</th></tr>${rows.join('')}</table>`
  )
}

/** livelockHtml - the page. It loads nothing from anywhere. */
export function livelockHtml(result: LivelockResult): string {
  const { host, config } = result
  const facts =
    `${host.cpu_model}, ${host.cores} cores, ${host.os}, Node ${host.node}, softnet ${host.softnet}; seed ${result.seed}, ` +
    `${config.cpus === 1 ? '1 CPU' : `${config.cpus} CPUs`}, ${config.lock} locks, ${config.duration_ms} ms a point, interrupt entry and exit ${config.irq_cost_ns} ns`
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>softnet: receive livelock</title>
<style>${uplotFile('uPlot.min.css')}${STYLE}</style></head><body>
<h1>Receive livelock</h1><p>${escapeHtml(facts)}</p>
${verdictTable(result)}
<div id="charts"></div>
<script type="application/json" id="result">${embedJson(result)}</script>
<script>${uplotFile('uPlot.iife.min.js')}</script>
<script>${SCRIPT}</script>
</body></html>
`
}
