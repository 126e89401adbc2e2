/** udpOnce.ts - a process that is a machine of one CPU, on which a program sends datagrams to itself over lo, and prints how many a second. */
import { performance } from 'node:perf_hooks'
import { take_interrupts } from '../../src/arch/cpu.js'
import { run_next } from '../../src/sched/sched.js'
import {
  bind,
  connect,
  type Libc,
  malloc,
  mem,
  recv,
  sched_yield,
  send,
  sockaddr_in,
  socket,
} from '../../src/user/libc.js'
import { start } from '../../test/helpers/programs.js'
import { Solo } from '../../test/helpers/solo.js'

const [size = 0, batch = 0, seconds = 0] = process.argv.slice(2).map(Number)
const PORT = 5000
const LOOPBACK = 0x7f000001

/** Receives and sends; a negative errno ends it. */
function* program(count: (n: number) => void): Libc {
  const out = yield* socket(2, 2, 0)
  const into = yield* socket(2, 2, 0)
  const addr = malloc(16)
  const bound = yield* bind(into, sockaddr_in(addr, LOOPBACK, PORT), 16)
  const connected = yield* connect(out, addr, 16)
  if (bound < 0 || connected < 0) return Math.min(bound, connected)
  const buf = malloc(size + 8)
  mem(buf, size).fill(0x5a)
  for (;;) {
    for (let k = 0; k < batch; k++) {
      const n = yield* send(out, buf, size, 0)
      if (n !== size) return n
    }
    for (let k = 0; k < batch; k++) {
      const n = yield* recv(into, buf, size + 8, 0)
      if (n !== size) return n
    }
    count(batch)
    yield* sched_yield()
  }
}

const solo = new Solo({ ports: [], config: { loopback: 1, user_procs: 2 } })
const seen = { n: 0 }
const running = start(() => program(n => (seen.n += n)))

function pass(ms: number): number {
  const [begin, before] = [performance.now(), seen.n]
  let now = begin
  for (; now < begin + ms && !running.done; now = performance.now()) {
    solo.board.step(now * 1e6)
    take_interrupts()
    for (let k = 0; k < 50; k++) run_next()
  }
  if (running.done) throw new Error(`the program ended with ${running.result}`)
  return ((seen.n - before) * 1000) / (now - begin)
}
pass(1000)
process.stdout.write(JSON.stringify({ per_second: pass(seconds * 1000) }))
