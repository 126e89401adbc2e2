/** forwardRows.ts - holds our forwarding figures against the host kernel's and the bare loop's. */
import { LeftOut } from './comparator.js'
import { type MeasureContext, type MeasureRow, row, tryRival } from './measure.js'

export interface ForwardPoint {
  destinations: number
  routes: number
  /** time of one core per forwarded packet, ns; the NIC's thread not counted */
  ns: number
  details?: unknown
}

/** hostRival - µs of one core per packet that the host kernel forwards between veth pairs. */
export async function hostRival(context: MeasureContext, destinations: number): Promise<number> {
  const point = (await context.veth()).find(p => p.destinations === destinations && p.layout === 'own core')
  const any = point ?? (await context.veth()).find(p => p.destinations === destinations)
  if (any === undefined) throw new LeftOut(`the host kernel was not measured with ${destinations} destinations`)
  return any.core_us
}

/** loopRival - ns per packet of the bare loop with its route cache and no locks. */
export async function loopRival(context: MeasureContext, destinations: number): Promise<number> {
  const loop = (await context.bareLoop()).find(l => l.destinations === destinations && l.locks === 0 && l.cache)
  if (loop === undefined) throw new LeftOut(`the bare loop was not run with ${destinations} destinations`)
  return loop.ns
}

/** forwardRows - two rows for each point: packets per core-second against the host kernel, and against the bare loop. */
export async function forwardRows(points: readonly ForwardPoint[], context: MeasureContext): Promise<MeasureRow[]> {
  const rows: MeasureRow[] = []
  for (const p of points) {
    const what = `forward 64 B, ${p.destinations} destination${p.destinations === 1 ? '' : 's'}, ${p.routes} routes`
    const host = await tryRival(() => hostRival(context, p.destinations))
    const loop = await tryRival(() => loopRival(context, p.destinations))
    const shared = { unit: 'packets/core-s', softnet: 1e9 / p.ns, better: 'more' as const, details: p.details }
    rows.push(
      row({
        ...shared,
        measure: what,
        rivalName: 'host veth',
        rival: host.value === null ? null : 1e6 / host.value,
        atLeast: 1,
        aim: 2.5,
        note: host.why,
      }),
      row({
        ...shared,
        measure: what,
        rivalName: 'bare loop',
        rival: loop.value === null ? null : 1e9 / loop.value,
        atLeast: 0.07,
        aim: 0.17,
        note: loop.why,
      }),
    )
  }
  return rows
}
