/** alarms.ts - on every CPU a process that computes by its virtual and profiling timers, and one that an alarm wakes. */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { cpu_relax } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { irq_stats } from '../../../src/irq/interrupt.js'
import {
  alarm,
  getitimer,
  ITIMER_PROF,
  ITIMER_REAL,
  ITIMER_VIRTUAL,
  itimer_expirations,
  setitimer,
} from '../../../src/irq/itimer.js'
import { jiffies, nanosleep } from '../../../src/irq/timer.js'
import { cond_resched, current, kernel_thread } from '../../../src/sched/sched.js'
import { dequeue_signal, SIGALRM, SIGPROF, SIGVTALRM } from '../../../src/sched/signal.js'

const TIMES = 6

class shared extends Struct {
  declare done: number
  declare wrong: number
}
const SHARED: Layout<shared> = layout('torture_alarms', shared, { done: word, wrong: word })
const s = DEFINE_STATIC('torture_alarms', SHARED)

function check(ok: boolean): void {
  if (!ok) fetch_add(s.addr + SHARED.offset('wrong'), 1)
}

/** What its timers count is no more than the ticks of its CPU: jiffies stand still while CPU 0 has lost the host's core. */
function* computes(): Generator<void, number, void> {
  const from = irq_stats.mine.timer
  let [virt, prof] = [0, 0]
  setitimer(ITIMER_VIRTUAL, { it_value: 3000, it_interval: 3000 })
  setitimer(ITIMER_PROF, { it_value: 4000, it_interval: 4000 })
  while (virt < TIMES || prof < TIMES) {
    for (let k = 0; k < 200; k++) cpu_relax()
    for (let sig = dequeue_signal(); sig !== 0; sig = dequeue_signal()) {
      if (sig === SIGVTALRM) virt++
      else if (sig === SIGPROF) prof++
      else check(false)
    }
    yield* cond_resched()
  }
  const passed = irq_stats.mine.timer - from
  check(itimer_expirations(current(), ITIMER_VIRTUAL) * 3 <= passed && virt * 3 <= passed)
  check(itimer_expirations(current(), ITIMER_PROF) * 4 <= passed && prof * 4 <= passed)
  check(getitimer(ITIMER_PROF)!.it_interval === 4000)
  fetch_add(s.addr, 1)
  return 0
}
const computes_sym = symbol('alarms_computes', computes)

function* sleeps(): Generator<void, number, void> {
  setitimer(ITIMER_REAL, { it_value: 5000, it_interval: 5000 })
  for (let k = 1; k <= TIMES; k++) {
    const from = jiffies()
    const left = yield* nanosleep(60e9)
    check(left > 0 && dequeue_signal() === SIGALRM && jiffies() - from < 60_000)
    check(itimer_expirations(current(), ITIMER_REAL) >= k)
  }
  check(alarm(1) > 0)
  fetch_add(s.addr, 1)
  return 0 // with an alarm pending, which goes with it
}
const sleeps_sym = symbol('alarms_sleeps', sleeps)

export function main(): void {
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    kernel_thread('computes', computes_sym, 0, { cpu, user: true })
    kernel_thread('sleeps', sleeps_sym, 0, { cpu, user: true })
  }
}
