/** waitAsync and timers: a producer that takes its time, and a consumer that does not block its event loop. */
export function setup() {
  return { words: new Int32Array(new SharedArrayBuffer(16)) }
}
type Shared = ReturnType<typeof setup>
type WaitAsync = (view: Int32Array, index: number, value: number) => { async: boolean; value: Promise<string> | string }

export const actors = {
  async consumer({ words }: Shared) {
    const { waitAsync } = Atomics as unknown as { waitAsync: WaitAsync }
    const got = waitAsync(words, 0, 0)
    const how = await got.value
    if (got.async && how !== 'ok') throw new Error(`woken by ${how}`)
    if (Atomics.load(words, 0) !== 7) throw new Error('woken too early')
  },
  async producer({ words }: Shared) {
    await new Promise(resolve => setTimeout(resolve, 1000))
    Atomics.store(words, 0, 7)
    Atomics.notify(words, 0)
  },
}
