import {
  assertExclusiveAccess,
  assertExclusiveAccessScoped,
  assertExclusiveBits,
  assertExclusiveWriter,
  assertExclusiveWriterScoped,
} from '../../../src/explore/exclusive.js'

/** Cases for the race detector, after kernel/kcsan/kcsan_test.c: each is a function for A and one for B. */
interface Case {
  a(w: Words): unknown
  b(w: Words): unknown
}
type Words = ReturnType<typeof setup>

const [DATA, FLAG] = [0, 1]

/** A lock of compareExchange. */
function locked(i32: Int32Array, body: () => void): void {
  while (Atomics.compareExchange(i32, FLAG, 0, 1) !== 0);
  body()
  Atomics.store(i32, FLAG, 0)
}

const write = ({ i32 }: Words): number => (i32[DATA] = 5)
const read = ({ i32 }: Words): number => i32[DATA]!

/** What `claim` says holds for a while, in which others may go on. */
function inScope({ i32 }: Words, claim: typeof assertExclusiveWriterScoped): void {
  const end = claim(i32, DATA)
  Atomics.load(i32, 2)
  Atomics.load(i32, 3)
  end()
}

const CASES: Record<string, Case> = {
  basic: { a: write, b: read },
  'basic: only reads': { a: read, b: read },
  'write and write': { a: write, b: write },
  'concurrent races': {
    a: ({ i32 }) => {
      i32[DATA] = 1
      i32[2] = 1
    },
    b: ({ i32 }) => i32[DATA]! + i32[2]!,
  },
  'a race before an exception': {
    a: write,
    b({ i32 }) {
      i32[DATA] = i32[DATA]! + 1
      throw new Error('comes behind it')
    },
  },
  'no value change': { a: ({ i32 }) => (i32[DATA] = 0), b: read },
  'one bit changes': { a: ({ i32 }) => (i32[DATA]! |= 1), b: read },
  'struct: whole and whole': { a: ({ i32 }) => i32.fill(1, 4, 8), b: ({ i32 }) => i32.set([2, 2, 2, 2], 4) },
  'struct: whole and part': { a: ({ i32 }) => i32.fill(1, 4, 8), b: ({ i32 }) => (i32[6] = 2) },
  'struct: parts of one': { a: ({ i32 }) => (i32[5] = 1), b: ({ i32 }) => (i32[6] = 2) },
  'word and byte of it': { a: write, b: ({ u8 }) => u8[3] },
  'bytes of one word': { a: ({ u8 }) => (u8[0] = 1), b: ({ u8 }) => (u8[1] = 1) },
  'half and byte': { a: ({ u16 }) => (u16[1] = 1), b: ({ u8 }) => u8[2] },
  'half and other byte': { a: ({ u16 }) => (u16[1] = 1), b: ({ u8 }) => u8[1] },
  'DataView over two words': { a: ({ view }) => view.setInt32(2, 1), b: ({ i32 }) => i32[1] },
  'marked and marked': { a: ({ i32 }) => Atomics.store(i32, DATA, 1), b: ({ i32 }) => Atomics.load(i32, DATA) },
  'marked write, plain read': { a: ({ i32 }) => Atomics.store(i32, DATA, 1), b: read },
  'marked update, plain read': { a: ({ i32 }) => Atomics.add(i32, DATA, 1), b: read },
  'plain write, marked read': { a: write, b: ({ i32 }) => Atomics.load(i32, DATA) },
  'marked read, plain read': { a: ({ i32 }) => Atomics.load(i32, DATA), b: read },
  'zero size': { a: write, b: ({ i32 }) => i32.fill(1, 0, 0) },
  'data_race on one side': { a: write, b: ({ i32 }) => i32[DATA] }, // data_race: B says that it means it
  'data_race in a statement': {
    a: ({ i32 }) => {
      i32[DATA]! += 1 /* data_race: a count that may lose some */
      i32[DATA]!++ // data_race
    },
    b: read,
  },
  'data_race beside another': {
    a: ({ i32 }) => {
      i32[DATA] = 1 // data_race
      i32[2] = 1
    },
    b: ({ i32 }) => i32[DATA]! + i32[2]!,
  },
  'all atomic operations': {
    a: ({ i32 }) => {
      Atomics.add(i32, DATA, 1)
      Atomics.sub(i32, DATA, 1)
      Atomics.or(i32, DATA, 1)
      Atomics.and(i32, DATA, 1)
      Atomics.xor(i32, DATA, 1)
    },
    b: ({ i32 }) => {
      Atomics.exchange(i32, DATA, 1)
      Atomics.compareExchange(i32, DATA, 1, 2)
      Atomics.load(i32, DATA)
      Atomics.store(i32, DATA, 3)
    },
  },
  'correct barrier': {
    a: ({ i32 }) => {
      i32[DATA] = 1
      Atomics.store(i32, FLAG, 1)
    },
    b: ({ i32 }) => (Atomics.load(i32, FLAG) !== 0 ? i32[DATA] : 0),
  },
  'missing barrier': {
    a: ({ i32 }) => {
      i32[DATA] = 1
      i32[FLAG] = 1
    },
    b: ({ i32 }) => (Atomics.load(i32, FLAG) !== 0 ? i32[DATA] : 0),
  },
  'barrier too early': {
    a: ({ i32 }) => {
      Atomics.store(i32, FLAG, 1)
      i32[DATA] = 1
    },
    b: ({ i32 }) => (Atomics.load(i32, FLAG) !== 0 ? i32[DATA] : 0),
  },
  'a lock': { a: w => locked(w.i32, () => write(w)), b: w => locked(w.i32, () => read(w)) },
  'a lock on one side': { a: w => locked(w.i32, () => write(w)), b: read },
  'a wake-up': {
    a: ({ i32 }) => {
      i32[DATA] = 1
      Atomics.store(i32, FLAG, 1)
      Atomics.notify(i32, FLAG)
    },
    b: ({ i32 }) => {
      Atomics.wait(i32, FLAG, 0)
      return i32[DATA]
    },
  },
  'exclusive writer, another writes': {
    a: ({ i32 }) => assertExclusiveWriter(i32, DATA),
    b: ({ i32 }) => Atomics.store(i32, DATA, 1),
  },
  'exclusive writer, another updates plainly': { a: ({ i32 }) => assertExclusiveWriter(i32), b: write },
  'exclusive writer, another writes one byte of several': {
    a: ({ i32 }) => assertExclusiveWriter(i32, 0, 4),
    b: ({ u8 }) => Atomics.or(u8, 14, 1),
  },
  'exclusive writer, another reads': {
    a({ i32 }) {
      assertExclusiveWriter(i32, DATA)
      Atomics.store(i32, DATA, 1)
    },
    b: ({ i32 }) => Atomics.load(i32, DATA),
  },
  'exclusive writer, another writes beside it': {
    a: ({ i32 }) => assertExclusiveWriter(i32, DATA),
    b: ({ i32 }) => Atomics.store(i32, 1, 1),
  },
  'exclusive writer under a lock, of both': {
    a: w =>
      locked(w.i32, () => {
        assertExclusiveWriter(w.i32, DATA)
        write(w)
      }),
    b: w => locked(w.i32, () => write(w)),
  },
  'exclusive writer under a lock, of one': {
    a: w =>
      locked(w.i32, () => {
        assertExclusiveWriter(w.i32, DATA)
        Atomics.store(w.i32, DATA, 2)
      }),
    b: ({ i32 }) => Atomics.store(i32, DATA, 1),
  },
  'exclusive access, another reads': {
    a: ({ i32 }) => assertExclusiveAccess(i32, DATA),
    b: ({ i32 }) => Atomics.load(i32, DATA),
  },
  'exclusive access, another writes': {
    a: ({ i32 }) => assertExclusiveAccess(i32, DATA),
    b: ({ i32 }) => Atomics.store(i32, DATA, 1),
  },
  'exclusive access, another says so too': {
    a: ({ i32 }) => assertExclusiveAccess(i32, DATA),
    b: ({ i32 }) => assertExclusiveAccess(i32, DATA),
  },
  'exclusive access, another is its writer': {
    a: ({ i32 }) => assertExclusiveAccess(i32, DATA),
    b: ({ i32 }) => assertExclusiveWriter(i32, DATA),
  },
  'exclusive writer, and so is another, of them none writes': {
    a: ({ i32 }) => assertExclusiveWriter(i32, DATA),
    b: ({ i32 }) => assertExclusiveWriter(i32, DATA),
  },
  'exclusive access, handed over': {
    a({ i32 }) {
      assertExclusiveAccess(i32, DATA)
      i32[DATA] = 1
      Atomics.store(i32, FLAG, 1)
    },
    b({ i32 }) {
      while (Atomics.load(i32, FLAG) === 0);
      assertExclusiveAccess(i32, DATA)
      i32[DATA]!++
    },
  },
  'exclusive bits, another changes them': {
    a: ({ i32 }) => assertExclusiveBits(i32, DATA, 0b10),
    b: ({ i32 }) => Atomics.xor(i32, DATA, 0b11),
  },
  'exclusive bits, another changes others': {
    a: ({ i32 }) => assertExclusiveBits(i32, DATA, 0b10),
    b: ({ i32 }) => Atomics.xor(i32, DATA, 0b101),
  },
  'exclusive writer for a while, another writes': {
    a: w => inScope(w, assertExclusiveWriterScoped),
    b: ({ i32 }) => Atomics.store(i32, DATA, 1),
  },
  'exclusive writer for a while, another reads': {
    a: w => inScope(w, assertExclusiveWriterScoped),
    b: ({ i32 }) => Atomics.load(i32, DATA),
  },
  'exclusive access for a while, another reads': {
    a: w => inScope(w, assertExclusiveAccessScoped),
    b: ({ i32 }) => Atomics.load(i32, DATA),
  },
  'exclusive access for a while, asked back and forth meanwhile': {
    a({ i32 }) {
      const end = assertExclusiveAccessScoped(i32, DATA)
      Atomics.store(i32, FLAG, 1)
      while (Atomics.load(i32, FLAG) !== 2);
      end()
    },
    b({ i32 }) {
      while (Atomics.load(i32, FLAG) !== 1);
      i32[DATA] = 1
      Atomics.store(i32, FLAG, 2)
    },
  },
  'exclusive access for a while, and then another': {
    a({ i32 }) {
      const end = assertExclusiveAccessScoped(i32, DATA)
      i32[DATA] = 1
      end()
      Atomics.store(i32, FLAG, 1)
    },
    b: ({ i32 }) => (Atomics.load(i32, FLAG) === 1 ? i32[DATA] : 0),
  },
  seqlock: {
    a: ({ i32 }) => {
      Atomics.add(i32, FLAG, 1)
      i32[2] = 1
      i32[3] = 1
      Atomics.add(i32, FLAG, 1)
    },
    b({ i32 }) {
      let seq: number
      let both: number[]
      do {
        seq = Atomics.load(i32, FLAG) & ~1
        both = [i32[2]!, i32[3]!] // data_race: thrown away when the count has moved
      } while (Atomics.load(i32, FLAG) !== seq)
      if (both[0] !== both[1]) throw new Error('half of a pair')
    },
  },
}

export function setup(args: string) {
  const buffer = new SharedArrayBuffer(64)
  return {
    i32: new Int32Array(buffer),
    u8: new Uint8Array(buffer),
    u16: new Uint16Array(buffer),
    view: new DataView(buffer),
    name: args,
  }
}

export const actors = {
  A: (w: Words) => void CASES[w.name]!.a(w),
  B: (w: Words) => void CASES[w.name]!.b(w),
}
