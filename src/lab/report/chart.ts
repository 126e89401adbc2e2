/** chart.ts - delivered over offered load as text, both logarithmic: architectures, and a router before and after, lie decades apart. */
import asciichart from 'asciichart'
import type { LivelockResult, LivelockSeries, RxArch } from '../types.js'
import { kpps, peak } from './format.js'

const HEIGHT = 14
const LABEL = 7
/** What stands left of the curves: the label, a space, the axis. */
const LEFT = LABEL + 2
const COLORS: Record<RxArch, string> = {
  interrupt: asciichart.red,
  softnet: asciichart.yellow,
  napi: asciichart.green,
  polled: asciichart.blue,
}

/** The axis of offered load. */
class LogAxis {
  constructor(
    readonly least: number,
    private readonly most: number,
    readonly width: number,
  ) {}
  column(offered: number): number {
    const share = this.most === this.least ? 0 : Math.log(offered / this.least) / Math.log(this.most / this.least)
    return Math.round(share * (this.width - 1))
  }
  offered(column: number): number {
    return this.least * (this.most / this.least) ** (column / Math.max(1, this.width - 1))
  }
  /** Its lowest and highest load and round ones between, as far as there is room for them. */
  ticks(): string {
    const line: string[] = new Array<string>(this.width).fill(' ')
    const put = (offered: number, from: number): boolean => {
      const text = kpps(offered)
      const free = line.slice(Math.max(0, from - 1), from + text.length + 1).every(c => c === ' ')
      if (from < 0 || from + text.length > this.width || !free) return false
      line.splice(from, text.length, ...text)
      return true
    }
    put(this.least, 0)
    put(this.most, this.width - kpps(this.most).length)
    for (const digit of [1, 3, 2, 5])
      for (let decade = 1; decade < this.most; decade *= 10)
        if (digit * decade > this.least && digit * decade < this.most) put(digit * decade, this.column(digit * decade))
    return line.join('').trimEnd()
  }
}

/** What a series delivers at an offered load, by straight lines through its points. */
function deliveredAt(s: LivelockSeries, offered: number): number {
  let a = s.points[0]!
  for (const b of s.points) {
    if (offered <= b.offered_pps) {
      const t = (offered - a.offered_pps) / Math.max(1, b.offered_pps - a.offered_pps)
      return a.delivered_pps + Math.max(0, t) * (b.delivered_pps - a.delivered_pps)
    }
    a = b
  }
  return a.delivered_pps
}

/** The range of delivered load, packets/s; what is less than `floor` is drawn there. */
interface Range {
  floor: number
  decades: number
}

/** From the highest peak down to the least delivered, or a hundredth of the lowest peak: who falls that deep has collapsed. */
function rangeOf(drawn: readonly LivelockSeries[]): Range {
  const peaks = drawn.map(peak).filter(p => p > 0)
  const least = Math.min(...drawn.flatMap(s => s.points.map(p => p.delivered_pps)))
  const floor = peaks.length === 0 ? 1 : 10 ** Math.floor(Math.log10(Math.max(least, Math.min(...peaks) / 100)))
  return { floor, decades: Math.log10(Math.max(10 * floor, ...peaks) / floor) }
}

/** The rows of one curve, all of one height, and the column in which it begins. */
function curve(s: LivelockSeries, axis: LogAxis, { floor, decades }: Range): { from: number; rows: string[] } {
  const from = axis.column(s.points[0]!.offered_pps)
  const to = axis.column(s.points[s.points.length - 1]!.offered_pps)
  const values = Array.from({ length: to - from + 2 }, (_, k) =>
    Math.log10(Math.max(floor, deliveredAt(s, axis.offered(from + k))) / floor),
  )
  const text = asciichart.plot(values, { height: HEIGHT, min: 0, max: decades, format: () => ' '.repeat(LABEL) })
  return { from, rows: text.split('\n').map(row => row.slice(LEFT)) }
}

/** One label for each row, from the top down. */
function labels(rows: number, { floor, decades }: Range): string[] {
  const at = (k: number): string => kpps(floor * 10 ** ((decades * (rows - 1 - k)) / Math.max(1, rows - 1)))
  return Array.from({ length: rows }, (_, k) => (k === rows - 1 ? `<${at(k)}` : at(k)))
}

/** chart - all series over one axis; each where its sweep was. Without colours a curve is drawn in its initial. */
export function chart(result: LivelockResult, width: number, color: boolean): string {
  const drawn = result.series.filter(s => s.points.length > 0)
  const loads = drawn.flatMap(s => s.points.map(p => p.offered_pps)).filter(x => x > 0)
  if (loads.length === 0) return ''
  const axis = new LogAxis(Math.min(...loads), Math.max(...loads), Math.max(20, width - LEFT))
  const range = rangeOf(drawn)
  const cells: string[][] = []
  for (const s of [...drawn].reverse()) {
    const { from, rows } = curve(s, axis, range)
    rows.forEach((row, y) => {
      const line = (cells[y] ??= new Array<string>(axis.width).fill(' '))
      for (const [x, c] of [...row].entries())
        if (c !== ' ' && from + x < axis.width)
          line[from + x] = color ? `${COLORS[s.rx]}${c}${asciichart.reset}` : s.rx[0]!
    })
  }
  const names = drawn.map(s => (color ? `${COLORS[s.rx]}${s.rx}${asciichart.reset}` : `${s.rx[0]} ${s.rx}`))
  const scale = labels(cells.length, range)
  const body = cells.map((line, y) => {
    const cross = y === cells.length - 1 ? '┼' : '┤'
    return `${scale[y]!.padStart(LABEL)} ${cross}${line.join('')}`.trimEnd()
  })
  return [
    'delivered kpps over offered kpps, both logarithmic:',
    ' '.repeat(LEFT) + names.join('   '),
    ...body,
    ' '.repeat(LEFT) + axis.ticks(),
  ].join('\n')
}
