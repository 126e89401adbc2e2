/** #41: a SYN request is dropped; a timer that runs just then is not pending, so nobody waits for it. */
import { type Twin, word } from '../kit/words.js'

const IDLE = 0
const PENDING = 1
const RUNNING = 2

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', timer: word(PENDING), hashed: word(1), freed: word() }
}
type Shared = ReturnType<typeof setup>

function del_timer_sync({ timer }: Shared): void {
  for (;;) {
    const was = Atomics.compareExchange(timer, 0, PENDING, IDLE)
    if (was !== RUNNING) return
  }
}

export const actors = {
  /** reqsk_timer_handler: another SYN-ACK, and once more later. */
  handler({ timer, hashed }: Shared) {
    if (Atomics.compareExchange(timer, 0, PENDING, RUNNING) !== PENDING) return
    const again = Atomics.load(hashed, 0) === 1
    Atomics.store(timer, 0, again ? PENDING : IDLE)
  },
  drop(s: Shared) {
    Atomics.store(s.hashed, 0, 0)
    if (s.fixed || Atomics.load(s.timer, 0) === PENDING) del_timer_sync(s)
    Atomics.store(s.freed, 0, 1)
  },
}

export function invariant({ timer, freed }: Shared): void {
  if (freed[0] === 1 && timer[0] !== IDLE) throw new Error('a timer is armed in the request that was freed')
}
