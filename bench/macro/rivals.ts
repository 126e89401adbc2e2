/** rivals.ts - what the rivals reach on this host, by themselves: figures for the file, no bar to reach. */
import { cLocksAlone, cRcu, LeftOut } from '../lib/comparator.js'
import { type Measure, type MeasureContext, type MeasureRow, row } from '../lib/measure.js'

function plain(measure: string, unit: string, rival: number, details?: unknown): MeasureRow {
  const none = { softnet: null, better: 'less' as const, atLeast: null, aim: null }
  return row({ ...none, measure, unit, rivalName: 'rival', rival, details })
}

async function veth(context: MeasureContext): Promise<MeasureRow[]> {
  return (await context.veth()).map(p =>
    plain(`host kernel, veth, ${p.destinations} destinations, ${p.layout}`, 'ns', p.core_us * 1000, p),
  )
}

async function bareLoop(context: MeasureContext): Promise<MeasureRow[]> {
  return (await context.bareLoop()).map(l => {
    const how = `${l.destinations} destinations, ${l.locks} lock pairs${l.cache ? '' : ', no route cache'}`
    return plain(`bare loop, ${how}`, 'ns', l.ns, l)
  })
}

async function locks(): Promise<MeasureRow[]> {
  const t = await cLocksAlone()
  return (['tas', 'pthread_spin', 'ticket', 'mcs'] as const).map(k => plain(`C ${k}, lock + unlock`, 'ns', t[k]))
}

async function rcu(): Promise<MeasureRow[]> {
  const t = await cRcu()
  return (['memb', 'bp', 'qsbr'] as const).map(k => plain(`liburcu ${k}, read lock + unlock`, 'ns', t[k]))
}

/** rivals - each group that cannot be had is named with its reason; the others are still shown. */
export const rivals: Measure = {
  name: 'rivals',
  async run(context) {
    const rows: MeasureRow[] = []
    const groups = { 'host kernel, veth': veth, 'bare loop': bareLoop, 'C locks': locks, liburcu: rcu }
    for (const [name, take] of Object.entries(groups)) {
      try {
        rows.push(...(await take(context)))
      } catch (e) {
        if (!(e instanceof LeftOut)) throw e
        const none = { unit: '', softnet: null, rivalName: '', rival: null, better: 'less' as const }
        rows.push(row({ ...none, measure: name, atLeast: null, aim: null, note: `left out: ${e.message}` }))
      }
    }
    return rows
  },
}
