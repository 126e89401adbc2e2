/** threadTimes.ts - what the host's scheduler says of a machine's threads: how long they waited for a core. */
import { readdirSync, readFileSync } from 'node:fs'

const TASKS = '/proc/self/task'

/** Of one thread, ms: how long it ran, and how long it could have run and had no core. */
function timesOf(tid: string): { ran: number; waited: number } {
  const [ran, waited] = readFileSync(`${TASKS}/${tid}/schedstat`, 'latin1').split(' ')
  return { ran: Number(ran) / 1e6, waited: Number(waited) / 1e6 }
}

/**
 * ThreadWatch - the threads of a machine are the `n` that run most; which ones is seen once, since to look at all of them
 * takes a core away for a third of a millisecond. On hosts that do not tell (other than Linux) nothing is known.
 */
export class ThreadWatch {
  readonly #n: number
  #first: ReadonlyMap<string, number> | null = null
  #tids: readonly string[] | null = null

  constructor(n: number) {
    this.#n = n
  }

  /** How long they have waited in all, ms; null when that is not known, or not known yet. */
  waited(): number | null {
    try {
      if (this.#tids === null) this.#look()
      return this.#tids === null ? null : this.#tids.reduce((sum, tid) => sum + timesOf(tid).waited, 0)
    } catch {
      return null
    }
  }

  /** Two looks at all threads tell which ones run. */
  #look(): void {
    const now = new Map(readdirSync(TASKS).map(tid => [tid, timesOf(tid).ran]))
    const first = this.#first
    this.#first = now
    if (first === null) return
    const busy = [...now].map(([tid, ran]) => ({ tid, ran: ran - (first.get(tid) ?? 0) }))
    busy.sort((a, b) => b.ran - a.ran)
    this.#tids = busy.slice(0, this.#n).map(t => t.tid)
  }
}
