/** Two programs on two CPUs write to a console that is nearly full; the host takes out what is there, and the clock ticks. */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, placed } from '../../../src/abi/section.js'
import { fetch_add, load, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down, send_vector, VEC_TIMER } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import type { console_ring } from '../../../src/drivers/char/console.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { CONSOLE_RING } from '../../../src/lib/limits.js'
import { exec, register_program } from '../../../src/syscall/exec.js'
import { malloc, mem, write } from '../../../src/user/libc.js'
import { cpu, nothing_leaked, power_on, secondary } from './machine.js'

class result extends Struct {
  declare ended: number
  declare lines: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('console_result', result, { ended: word, lines: word, wrong: word })
const r = DEFINE_STATIC('console_result', RESULT)
const ENDED = r.addr

const LINES = 2
const TEXT = 40
const RECORD = 16 + TEXT

register_program('writer', function* () {
  const buf = malloc(TEXT)
  mem(buf, TEXT).fill(65)
  for (let k = 0; k < LINES; k++) if ((yield* write(1, buf, TEXT)) !== TEXT) r.wrong = 1
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
})

function ring(): console_ring {
  const con = placed.find(p => p.name === 'console')!
  return con.layout.ref(con.offset) as console_ring
}
const con = ring()
const [HEAD, TAIL] = ['head', 'tail'].map(
  f => con.addr + placed.find(p => p.name === 'console')!.layout.offset(f as never),
)

/** Room for one record, as if much had been written before. */
export function setup(): null {
  power_on(2, { rx_arch: 2, user_procs: 2 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  store(TAIL!, RECORD - CONSOLE_RING)
  exec(['writer'], { cpu: 0 })
  exec(['writer'], { cpu: 1 })
  return null
}
export const prepare = secondary

/** The host: what it finds is complete. Then a tick. */
function host(): void {
  for (let k = 0; k < 3; k++) {
    const head = load(HEAD!)
    for (let at = Math.max(0, RAM.i32[TAIL! >> 2]!); at < head; at += RECORD) take(at)
    store(TAIL!, head)
    send_vector(0, VEC_TIMER)
  }
}
function take(at: number): void {
  const words = RAM.i32.subarray((con.ring + at) >> 2, (con.ring + at + RECORD) >> 2)
  const whole = words[0] === TEXT && words[3] === 1 && words.subarray(4).every(w => w === 0x41414141)
  if (!whole) r.wrong = 1
  r.lines++
}
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, host }
export const describe = describeAddress
export const outcome = (): string => `${r.ended} ended`

export function invariant(): void {
  for (let at = RAM.i32[TAIL! >> 2]!; at < RAM.i32[HEAD! >> 2]!; at += RECORD) take(at)
  if (r.ended !== 2 || r.wrong !== 0 || r.lines !== 2 * LINES)
    throw new Error(`${r.ended} ended, ${r.lines} lines came, wrong: ${r.wrong}`)
  nothing_leaked()
}
