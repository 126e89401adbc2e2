/**
 * A ring of two places, from one producer to one consumer. A third actor looks at both indices, or is another producer behind
 * a lock. `broken`: an element is announced before it is there.
 */
const PLACES = 2
const [HEAD, TAIL, LOCK] = [0, 1, 2]

export interface Args {
  elements: number
  third: 'none' | 'monitor' | 'producer'
  broken: boolean
}

export function setup(args: Args) {
  return {
    index: new Int32Array(new SharedArrayBuffer(12)),
    place: new Int32Array(new SharedArrayBuffer(PLACES * 4)),
    got: new Int32Array(new SharedArrayBuffer(64)),
    ...args,
  }
}
type Shared = ReturnType<typeof setup>

function push({ index, place, broken }: Shared, element: number): void {
  const head = Atomics.load(index, HEAD)
  while (head - Atomics.load(index, TAIL) === PLACES);
  if (broken) Atomics.store(index, HEAD, head + 1)
  place[head % PLACES] = element
  if (!broken) Atomics.store(index, HEAD, head + 1)
}

function pop({ index, place }: Shared): number {
  const tail = Atomics.load(index, TAIL)
  while (Atomics.load(index, HEAD) === tail);
  const element = place[tail % PLACES]!
  Atomics.store(index, TAIL, tail + 1)
  return element
}

function produce(shared: Shared, first: number): void {
  const { index, third, elements } = shared
  for (let k = 0; k < elements; k++) {
    if (third === 'producer') while (Atomics.compareExchange(index, LOCK, 0, 1) !== 0);
    push(shared, first + k)
    if (third === 'producer') Atomics.store(index, LOCK, 0)
  }
}

export const actors = {
  producer: (shared: Shared): void => produce(shared, 1),
  consumer(shared: Shared): void {
    const { elements, third, got } = shared
    const last = [0, 100]
    for (let k = 0; k < (third === 'producer' ? 2 : 1) * elements; k++) {
      const element = pop(shared)
      const from = element > 100 ? 1 : 0
      if (element !== last[from]! + 1) throw new Error(`${element} comes after ${last[from]}`)
      last[from] = element
      got[k] = element
    }
  },
  third(shared: Shared): void {
    const { third, index } = shared
    if (third === 'producer') produce(shared, 101)
    if (third !== 'monitor') return
    const before = Atomics.load(index, TAIL)
    const head = Atomics.load(index, HEAD)
    const after = Atomics.load(index, TAIL)
    if (head < before || head > after + PLACES) throw new Error(`${head} of ${before} to ${after + PLACES}`)
  },
}

export const outcome = ({ got }: Shared): string => Array.from(got).filter(Boolean).join()
