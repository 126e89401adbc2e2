/** What an actor has written itself it reads back, in whatever pieces, while others see nothing of it or all. */
export function setup(args: { how: string }) {
  return { buffer: new SharedArrayBuffer(32), how: args.how, seen: new Int32Array(new SharedArrayBuffer(16)) }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  A({ buffer, how }: Shared): void {
    const i32 = new Int32Array(buffer)
    const u8 = new Uint8Array(buffer)
    const i16 = new Int16Array(buffer)
    const f64 = new Float64Array(buffer)
    const expect = (got: unknown, wanted: unknown): void => {
      if (got !== wanted) throw new Error(`reads ${got}, not ${wanted}`)
    }
    i32[0] = 0x01020304
    expect(u8[1], 3)
    u8[1] = 0xff
    expect(i32[0], 0x0102ff04)
    i16[1] = -2
    expect(i32[0], (0xfffe << 16) | 0xff04)
    expect(Atomics.load(i32, 0), (0xfffe << 16) | 0xff04)
    f64[1] = 1.5
    expect(f64[1], 1.5)
    i32[3] = 0
    expect(f64[1], 0)
    i32[0]!++
    expect(i32[0], (0xfffe << 16) | 0xff05)
    if (how === 'method') expect(new DataView(buffer).getUint16(0, true), 0xff05)
    else expect(Atomics.add(i32, 0, 1), (0xfffe << 16) | 0xff05)
  },
  B({ buffer, seen }: Shared): void {
    const u8 = new Uint8Array(buffer)
    const f64 = new Float64Array(buffer)
    Reflect.set(seen, 0, u8[1])
    Reflect.set(seen, 1, f64[1] === 0 ? 0 : f64[1] === 1.5 ? 1 : 2)
  },
}

export function invariant({ buffer, how }: Shared): void {
  const word = new Int32Array(buffer)[0]!
  const wanted = ((0xfffe << 16) | 0xff05) + (how === 'method' ? 0 : 1)
  if (word !== wanted) throw new Error(`memory ends as ${word.toString(16)}`)
}

export function outcome({ seen }: Shared): string {
  return `${seen[0]} ${seen[1]}`
}
