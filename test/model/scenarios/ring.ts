/** The single-producer ring of npm's ringbuf.js, as published. */
import { RingBuffer } from 'ringbuf.js'

export function setup() {
  return { memory: RingBuffer.getStorageForCapacity(3, Uint8Array) as SharedArrayBuffer }
}
type Shared = ReturnType<typeof setup>

export const actors = {
  producer({ memory }: Shared) {
    const ring = new RingBuffer(memory, Uint8Array)
    for (let sent = 0; sent < 4; ) sent += ring.push(Uint8Array.of(sent + 1))
  },
  consumer({ memory }: Shared) {
    const ring = new RingBuffer(memory, Uint8Array)
    const one = new Uint8Array(1)
    for (let got = 0; got < 4; ) {
      if (ring.pop(one) === 0) continue
      if (one[0] !== got + 1) throw new Error(`element ${got} is ${one[0]}`)
      got++
    }
  },
}
