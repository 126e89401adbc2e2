/** Loops of many rounds in which nothing is new, and that end all the same; and one that does not. */
const ROUNDS = 700

export interface Args {
  how: 'locked' | 'ping pong' | 'counted' | 'deadline' | 'for ever' | 'for ever, each'
}

export function setup(args: Args) {
  const memory = new SharedArrayBuffer(16)
  return {
    word: new Int32Array(memory, 0, 1),
    count: new Int32Array(memory, 4, 1),
    flag: new Int32Array(memory, 8, 1),
    ...args,
  }
}
type Shared = ReturnType<typeof setup>

function act({ word, count, flag, how }: Shared, { index }: { index: number }): void {
  switch (how) {
    case 'locked':
      for (let k = 0; k < ROUNDS; k++) {
        while (Atomics.compareExchange(word, 0, 0, 1) !== 0) Atomics.add(flag, 0, 1)
        count[0] = count[0]! + 1
        Atomics.store(word, 0, 0)
      }
      break
    case 'ping pong':
      for (let k = 0; k < ROUNDS; k++) {
        while (Atomics.load(word, 0) !== index);
        Atomics.store(word, 0, 1 - index)
      }
      break
    case 'counted':
      for (let k = 0; k < ROUNDS && Atomics.load(flag, 0) === 0; k++) Atomics.add(count, 0, 1)
      break
    case 'deadline': {
      const end = performance.now() + 3
      while (performance.now() < end && Atomics.load(flag, 0) === 0) Atomics.add(count, 0, 1)
      break
    }
    case 'for ever':
      if (index === 0) Atomics.store(flag, 0, 2)
      else while (Atomics.load(flag, 0) !== 1) Atomics.add(count, 0, 1)
      break
    case 'for ever, each':
      while (Atomics.load(flag, 0) !== 1) Atomics.add(count, 0, 1)
  }
}

export const actors = { A: act, B: act }
