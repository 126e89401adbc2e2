/** netfilter.ts - what the packet filter adds to a forwarded 64-byte packet on one CPU: tables, rules that do not match, connections. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type Measure, row } from '../lib/measure.js'

const run = promisify(execFile)

/** Rules for a chain that no packet of the source matches: each is looked at. */
function rules(n: number): string {
  const lines = Array.from({ length: n }, (_, k) => `-A FORWARD -s 192.168.${k >> 8}.${k & 255} -j DROP\n`)
  return `*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n${lines.join('')}COMMIT\n`
}
const CONNTRACK = rules(0).replace('COMMIT', '-A FORWARD -m state --state NEW,ESTABLISHED -j ACCEPT\nCOMMIT')

const POINTS: readonly [name: string, text: string][] = [
  ['no hooks', ''],
  ['an empty table filter', rules(0)],
  ['10 rules', rules(10)],
  ['100 rules', rules(100)],
  ['connection tracking and a rule on its state', CONNTRACK],
]

/** ns of the kernel for each packet, on a thread of a process of its own. */
async function cost(text: string): Promise<number> {
  const script = fileURLToPath(new URL('../lib/soloFilter.js', import.meta.url))
  const { stdout } = await run(process.execPath, [script, Buffer.from(text).toString('base64')])
  return (JSON.parse(stdout) as { ns: number }).ns
}

export const netfilter: Measure = {
  name: 'netfilter',
  async run() {
    const rows = []
    let bare: number | null = null
    for (const [name, text] of POINTS) {
      const ns = await cost(text)
      rows.push(
        row({
          measure: `a forwarded packet, ${name}`,
          unit: 'ns',
          softnet: ns,
          rivalName: bare === null ? '' : 'no hooks',
          rival: bare,
          better: 'less',
          atLeast: null,
          aim: null,
        }),
      )
      bare ??= ns
    }
    return rows
  },
}
