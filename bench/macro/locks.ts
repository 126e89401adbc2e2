/** locks.ts - lock pairs: alone on one CPU, and eight CPUs after one lock, against the same in C. */
import { cLocksAlone, cLocksContended, type LockTimes } from '../lib/comparator.js'
import { type Contention, contended } from '../lib/contention.js'
import { LOCK_KINDS, type LockKind } from '../lib/machine.js'
import { type Measure, row, tryRival } from '../lib/measure.js'
import { type MicroResult, runMicro } from '../lib/micro.js'

const CPUS = 8
const SECONDS = 0.6
const ROUNDS = 3 // ours and C's in turn, so that a change of the host's mood meets both

function least<K extends string>(runs: readonly Record<K, number>[], key: K): number {
  return Math.min(...runs.map(r => r[key]))
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]
}

/** uncontended - spin_lock + spin_unlock of each kind against pthread_spin, ns: the best of three rounds of each. */
export const uncontended: Measure = {
  name: 'spinlock',
  async run() {
    const c: LockTimes[] = []
    let why: string | undefined
    const ours: Record<LockKind, MicroResult[][]> = { tas: [], ticket: [], mcs: [] }
    for (let round = 0; round < ROUNDS; round++) {
      const theirs = await tryRival(cLocksAlone)
      if (theirs.value !== null) c.push(theirs.value)
      else why = theirs.why
      for (const kind of LOCK_KINDS) ours[kind].push(await runMicro('spinlock', kind, 120))
    }
    return LOCK_KINDS.map(kind =>
      row({
        measure: `spin_lock + spin_unlock, ${kind}`,
        unit: 'ns',
        softnet: Math.min(...ours[kind].map(r => r[0].ns)),
        rivalName: 'pthread_spin',
        rival: c.length === 0 ? null : least(c, 'pthread_spin'),
        better: 'less',
        atLeast: 4,
        aim: 2,
        note: why,
        details: { rounds: ours[kind], c },
      }),
    )
  },
}

const PAIRS = [
  { kind: 'tas', rival: 'pthread_spin', atLeast: 0.5, aim: 1 },
  { kind: 'ticket', rival: 'ticket', atLeast: 3, aim: 10 },
  { kind: 'mcs', rival: 'mcs', atLeast: 3, aim: 10 },
] as const

/**
 * contention - acquisitions per second by eight CPUs, ours and C's both counted once all of them contend. C's fair locks
 * then pass once per time slice. A naive benchmark counts the start of its threads in, when only one or two of them
 * run yet, and so sees the 0.03 to 0.1 M/s that are often quoted; that figure is in the note.
 */
export const contention: Measure = {
  name: 'contended',
  async run({ cores }) {
    const c: (LockTimes & { whole: LockTimes })[] = []
    let why: string | undefined
    const ours: Record<LockKind, Contention[]> = { tas: [], ticket: [], mcs: [] }
    for (let round = 0; round < ROUNDS; round++) {
      const theirs = await tryRival(() => cLocksContended(CPUS, SECONDS))
      if (theirs.value !== null) c.push(theirs.value)
      else why = theirs.why
      for (const kind of LOCK_KINDS) ours[kind].push(await contended(kind, CPUS, SECONDS))
    }
    return PAIRS.map(p => {
      const softnet = median(ours[p.kind].map(r => r.perSecond))
      const naive = c.length === 0 ? 0 : median(c.map(r => r.whole[p.rival]))
      const said = `C with the start of its threads counted in: ${naive}/s, ${(softnet / naive).toFixed(2)} x`
      return row({
        measure: `${p.kind}, ${CPUS} CPUs on ${cores} core${cores === 1 ? '' : 's'}`,
        unit: 'acquisitions/s',
        softnet,
        rivalName: `C ${p.rival}`,
        rival: c.length === 0 ? null : median(c.map(r => r[p.rival])),
        better: 'more',
        atLeast: p.atLeast,
        aim: p.aim,
        note: why ?? (p.kind === 'tas' ? undefined : said),
        details: { rounds: ours[p.kind], c },
      })
    })
  },
}
