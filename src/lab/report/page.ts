/** page.ts - a self-contained page of line charts; uPlot is inlined from the installed package. */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

const require = createRequire(import.meta.url)

/** uplotFile - a file of uPlot's distribution. */
export function uplotFile(name: string): string {
  return readFileSync(join(dirname(require.resolve('uplot/package.json')), 'dist', name), 'utf8')
}

/** escapeHtml - text between tags, or in an attribute. */
export function escapeHtml(text: string): string {
  return text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;').replace(/"/g, '&quot;')
}

/** embedJson - JSON that may stand inside a script element. */
export function embedJson(value: unknown): string {
  return JSON.stringify(value)
    .replace(/</g, '\\u003c')
    .replace(/\u2028/g, '\\u2028')
    .replace(/\u2029/g, '\\u2029')
}

export interface ChartSeries {
  label: string
  color: string
  points: (readonly [x: number, y: number])[]
  /** Marks only, no line: measured elsewhere. */
  marks?: boolean
}
export interface Chart {
  title: string
  /** What to see in it, a sentence or two. */
  text: string
  x: string
  y: string
  series: ChartSeries[]
}

const STYLE = `
:root { color-scheme: light dark; --line: #8886 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em }
.chart { margin: 1em 0 2.5em } .u-legend { text-align: left }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #ddd } .u-over, .u-title { color: #ddd } }
`

const SCRIPT = `
const charts = JSON.parse(document.getElementById('charts').textContent)
const dark = matchMedia('(prefers-color-scheme: dark)').matches
const ink = dark ? '#ccc' : '#333', grid = dark ? '#ffffff22' : '#00000012'
const axis = label => ({ label, stroke: ink, grid: { stroke: grid }, ticks: { stroke: grid }, size: 60 })
charts.forEach((c, n) => {
  const x = [...new Set(c.series.flatMap(s => s.points.map(p => p[0])))].sort((a, b) => a - b)
  const column = s => { const at = new Map(s.points); return x.map(v => at.has(v) ? at.get(v) : null) }
  const show = v => v == null ? '-' : v.toFixed(v < 100 && v % 1 ? 1 : 0)
  new uPlot({
    width: Math.min(1040, document.body.clientWidth - 20), height: 380,
    scales: { x: { time: false, range: (u, lo, hi) => [0, hi * 1.02] }, y: { range: (u, lo, hi) => [0, Math.max(1, hi * 1.05)] } },
    axes: [axis(c.x), axis(c.y)],
    series: [{ label: c.x, value: (u, v) => show(v) }, ...c.series.map(s => ({
      label: s.label, stroke: s.color, width: s.marks ? 0 : 2, spanGaps: !s.marks,
      points: { show: true, size: s.marks ? 9 : 4, fill: s.marks ? 'transparent' : s.color, width: 1.5 }, value: (u, v) => show(v) }))],
  }, [x, ...c.series.map(column)], document.getElementById('chart' + n))
})
`

/** chartPage - the page; it loads nothing from anywhere. `intro` is text, a paragraph each. */
export function chartPage(title: string, intro: readonly string[], charts: readonly Chart[]): string {
  const body = charts
    .map(
      (c, n) => `<h2>${escapeHtml(c.title)}</h2><p>${escapeHtml(c.text)}</p><div class="chart" id="chart${n}"></div>`,
    )
    .join('\n')
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escapeHtml(title)}</title>
<style>${uplotFile('uPlot.min.css')}${STYLE}</style></head><body>
<h1>${escapeHtml(title)}</h1>
${intro.map(p => `<p>${escapeHtml(p)}</p>`).join('\n')}
${body}
<script type="application/json" id="charts">${embedJson(charts)}</script>
<script>${uplotFile('uPlot.iife.min.js')}</script>
<script>${SCRIPT}</script>
</body></html>
`
}
