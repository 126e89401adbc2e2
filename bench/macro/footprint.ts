/** footprint.ts - what a machine takes: JavaScript heap for a packet, time to boot, resident memory; a process for each. */
import { fileURLToPath } from 'node:url'
import { runJson } from '../lib/comparator.js'
import { type Measure, row } from '../lib/measure.js'

const script = (name: string): string => fileURLToPath(new URL(`../lib/${name}.js`, import.meta.url))
const BOOTS = 5

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!
}

export const heap: Measure = {
  name: 'heap',
  async run() {
    const flags = ['--expose-gc', '--max-semi-space-size=128', '--min-semi-space-size=128']
    const details = await runJson<{ bytes: number }>(process.execPath, [...flags, script('heapOnce')])
    return [
      row({
        measure: 'JavaScript heap for a forwarded packet',
        unit: 'bytes',
        softnet: Math.round(details.bytes * 100) / 100,
        rivalName: '',
        rival: null,
        better: 'less',
        atLeast: 8,
        aim: 0,
        details,
      }),
    ]
  },
}

export const boot: Measure = {
  name: 'boot',
  async run() {
    const runs: { ms: number; power_on_ms: number; rss_mib: number }[] = []
    for (let k = 0; k < BOOTS; k++) runs.push(await runJson(process.execPath, [script('bootOnce')]))
    const shared = { rivalName: '', rival: null, better: 'less' as const, details: { runs } }
    return [
      row({
        ...shared,
        measure: 'boot of 4 CPUs and a NIC to the first forwarded packet',
        unit: 'ms',
        softnet: Math.round(median(runs.map(r => r.ms))),
        atLeast: 800,
        aim: 300,
      }),
      row({
        ...shared,
        measure: 'resident memory of that machine',
        unit: 'MiB',
        softnet: Math.round(median(runs.map(r => r.rss_mib))),
        atLeast: 200,
        aim: 128,
      }),
    ]
  },
}
