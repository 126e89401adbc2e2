/** sleepers.ts - timers and wait queues across CPUs: a ring of processes hands tokens on, each sleeping and waking. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { cpu_id } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import {
  del_timer_sync,
  init_timer,
  jiffies,
  mod_timer,
  msleep,
  TIMER,
  time_after,
  type timer_list,
} from '../../../src/irq/timer.js'
import {
  create_workqueue,
  flush_workqueue,
  INIT_WORK,
  queue_work,
  schedule_work,
  WORK,
  type work_struct,
} from '../../../src/irq/workqueue.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import {
  init_waitqueue_head,
  WAIT_QUEUE_HEAD,
  wait_event,
  type wait_queue_head_t,
  wake_up,
} from '../../../src/sched/wait.js'
import { spin_lock_irqsave, spin_unlock_irqrestore } from '../../../src/sync/spinlock.js'

const LAPS = 300
const TIMERS = 200

class station extends Struct {
  declare wait: wait_queue_head_t
  declare tokens: number
  declare passed: number
  declare fired: number
  declare early: number
  declare worked: number
  declare timer: timer_list
  declare work: work_struct
}
const STATION: Layout<station> = layout('torture_station', station, {
  wait: embed(WAIT_QUEUE_HEAD),
  tokens: word,
  passed: word,
  fired: word,
  early: word,
  worked: word,
  timer: embed(TIMER),
  work: embed(WORK),
})
const stations = DEFINE_PER_CPU('torture_station', STATION)
class shared extends Struct {
  declare done: number
}
const SHARED: Layout<shared> = layout('torture_sleepers', shared, { done: word })
const s = DEFINE_STATIC('torture_sleepers', SHARED)

function give(cpu: number): void {
  const st = stations.cpu(cpu)
  const flags = spin_lock_irqsave(st.wait.lock)
  st.tokens++
  spin_unlock_irqrestore(st.wait.lock, flags)
  wake_up(st.wait)
}
function take(st: station): boolean {
  const flags = spin_lock_irqsave(st.wait.lock)
  const got = st.tokens > 0
  if (got) st.tokens--
  spin_unlock_irqrestore(st.wait.lock, flags)
  return got
}

function* runner(): Generator<void, number, void> {
  const st = stations.mine
  for (let lap = 0; lap < LAPS; lap++) {
    yield* wait_event(st.wait, () => take(st))
    st.passed++
    give((cpu_id + 1) % num_cpus())
  }
  fetch_add(s.addr, 1)
  return 0
}
const runner_sym = symbol('torture_runner', runner)

function fire(cpu: number): void {
  const st = stations.cpu(cpu)
  if (time_after(st.timer.expires, jiffies())) st.early++
  fetch_add(st.addr + STATION.offset('fired'), 1)
}
const fire_sym = symbol('torture_fire', fire)

function* work(cpu: number): Generator<void, void, void> {
  yield* msleep(1)
  fetch_add(stations.cpu(cpu).addr + STATION.offset('worked'), 1)
}
const work_sym = symbol('torture_work', work)

/** Arms the timer of the next CPU over and over, so that timers move between wheels while they run. */
function* arm(): Generator<void, number, void> {
  const other = stations.cpu((cpu_id + 1) % num_cpus())
  const wq = cpu_id === 0 ? create_workqueue('torture') : null
  for (let k = 0; k < TIMERS; k++) {
    mod_timer(other.timer, jiffies() + (k % 3))
    if (k % 8 === 0) schedule_work(stations.mine.work)
    if (k % 4 === 0) yield* msleep(1)
  }
  del_timer_sync(other.timer)
  if (wq !== null) {
    INIT_WORK(stations.mine.work, work_sym, cpu_id)
    queue_work(wq, stations.mine.work)
    yield* flush_workqueue(wq)
  }
  fetch_add(s.addr, 1)
  return 0
}
const arm_sym = symbol('torture_arm', arm)

/** main - @context process */
export function main(): void {
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    const st = stations.cpu(cpu)
    init_waitqueue_head(st.wait)
    init_timer(st.timer, fire_sym, cpu)
    INIT_WORK(st.work, work_sym, cpu)
  }
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    kernel_thread('runner', runner_sym, cpu, { cpu })
    if (cpu > 0 || num_cpus() === 1) kernel_thread('arm', arm_sym, cpu, { cpu })
    else kernel_thread('arm', arm_sym, cpu, { cpu, nice: 5 })
  }
  give(0)
  give(0)
}
