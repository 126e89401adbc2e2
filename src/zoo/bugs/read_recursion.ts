/** #5: a reader of a fair rwlock takes it once more while a writer waits in between. */
import { type Twin, type Word, word } from '../kit/words.js'

/** All who come take a ticket; readers let the next one in at once, a writer when it is done. */
export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', next: word(), serving: word(), readers: word(), devices: word(3) }
}
type Shared = ReturnType<typeof setup>

function until(w: Word, value: number): void {
  for (let now = Atomics.load(w, 0); now !== value; now = Atomics.load(w, 0)) Atomics.wait(w, 0, now)
}
function serve_next(s: Shared): void {
  Atomics.add(s.serving, 0, 1)
  Atomics.notify(s.serving, 0)
}
function read_lock(s: Shared): void {
  until(s.serving, Atomics.add(s.next, 0, 1))
  Atomics.add(s.readers, 0, 1)
  serve_next(s)
}
function read_unlock(s: Shared): void {
  Atomics.sub(s.readers, 0, 1)
  Atomics.notify(s.readers, 0)
}
function write_lock(s: Shared): void {
  until(s.serving, Atomics.add(s.next, 0, 1))
  until(s.readers, 0)
}

/** Fixed: who holds the lock calls the half that takes none. */
function dev_get(s: Shared): number {
  if (!s.fixed) read_lock(s)
  const n = Atomics.load(s.devices, 0)
  if (!s.fixed) read_unlock(s)
  return n
}

export const actors = {
  dump(s: Shared) {
    read_lock(s)
    dev_get(s)
    read_unlock(s)
  },
  register(s: Shared) {
    write_lock(s)
    Atomics.add(s.devices, 0, 1)
    serve_next(s)
  },
}
