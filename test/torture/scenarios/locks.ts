/** locks.ts - processes and softirqs of all CPUs count under one lock of each sort; what is lost shows in the sums. */
import { embed, type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add } from '../../../src/arch/atomic.js'
import { BUG_ON, cpu_id, tick } from '../../../src/arch/cpu.js'
import { num_cpus } from '../../../src/arch/machine.js'
import { init_timer, jiffies, mod_timer, TIMER, type timer_list } from '../../../src/irq/timer.js'
import { cond_resched, kernel_thread } from '../../../src/sched/sched.js'
import { down, SEMAPHORE, sema_init, type semaphore, up } from '../../../src/sched/semaphore.js'
import { spin_lock_bh, spin_trylock_bh, spin_unlock_bh } from '../../../src/sync/bh.js'
import {
  RWLOCK,
  read_lock_bh,
  read_unlock_bh,
  rwlock_init,
  type rwlock_t,
  write_lock_bh,
  write_unlock_bh,
} from '../../../src/sync/rwlock.js'
import {
  read_seqbegin,
  read_seqretry,
  SEQLOCK,
  seqlock_init,
  type seqlock_t,
  write_seqlock_irqsave,
  write_sequnlock_irqrestore,
} from '../../../src/sync/seqlock.js'
import {
  SPINLOCK,
  spin_lock,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../../../src/sync/spinlock.js'

const ROUNDS = 4000

class shared extends Struct {
  declare spin: spinlock_t
  declare counted: number
  declare bh: spinlock_t
  declare bh_counted: number
  declare rw: rwlock_t
  declare rw_a: number
  declare rw_b: number
  declare seq: seqlock_t
  declare seq_a: number
  declare seq_b: number
  declare sem: semaphore
  declare sem_counted: number
  declare done: number
}
const SHARED: Layout<shared> = layout('torture_locks', shared, {
  spin: embed(SPINLOCK),
  counted: word,
  bh: embed(SPINLOCK),
  bh_counted: word,
  rw: embed(RWLOCK),
  rw_a: word,
  rw_b: word,
  seq: embed(SEQLOCK),
  seq_a: word,
  seq_b: word,
  sem: embed(SEMAPHORE),
  sem_counted: word,
  done: word,
})
const s = DEFINE_STATIC('torture_locks', SHARED)

class own extends Struct {
  declare counted: number
  declare bh_counted: number
  declare rw_written: number
  declare seq_written: number
  declare sem_counted: number
  declare torn: number
  declare timer: timer_list
}
const OWN: Layout<own> = layout('torture_own', own, {
  counted: word,
  bh_counted: word,
  rw_written: word,
  seq_written: word,
  sem_counted: word,
  torn: word,
  timer: embed(TIMER),
})
const owns = DEFINE_PER_CPU('torture_own', OWN)
const mine = owns.mine

/** A load and a store with room in between for everybody else to come. */
function slow_inc(read: () => number, write: (n: number) => void): void {
  const n = read()
  tick(10)
  write(n + 1)
}

/** From the timer softirq: shares `bh` with the processes. */
function from_timer(): void {
  spin_lock(s.bh)
  s.bh_counted++
  mine.bh_counted++
  spin_unlock(s.bh)
  mod_timer(mine.timer, jiffies() + 1)
}
const from_timer_sym = symbol('torture_from_timer', from_timer)

function round(k: number): void {
  const flags = spin_lock_irqsave(s.spin)
  slow_inc(
    () => s.counted,
    n => {
      s.counted = n
    },
  )
  mine.counted++
  spin_unlock_irqrestore(s.spin, flags)

  if ((k & 1) === 0 || !spin_trylock_bh(s.bh)) spin_lock_bh(s.bh)
  slow_inc(
    () => s.bh_counted,
    n => {
      s.bh_counted = n
    },
  )
  mine.bh_counted++
  spin_unlock_bh(s.bh)

  if ((k & 7) === 0) {
    write_lock_bh(s.rw)
    s.rw_a++
    tick(10)
    s.rw_b++
    mine.rw_written++
    write_unlock_bh(s.rw)
    const irq = write_seqlock_irqsave(s.seq)
    s.seq_a++
    tick(10)
    s.seq_b++
    mine.seq_written++
    write_sequnlock_irqrestore(s.seq, irq)
  } else {
    read_lock_bh(s.rw)
    if (s.rw_a !== s.rw_b) mine.torn++
    read_unlock_bh(s.rw)
    let a = 0
    let b = 0
    let ticket: number
    do {
      ticket = read_seqbegin(s.seq)
      a = s.seq_a
      b = s.seq_b
    } while (read_seqretry(s.seq, ticket))
    if (a !== b) mine.torn++
  }
}

function* worker(): Generator<void, number, void> {
  init_timer(mine.timer, from_timer_sym, cpu_id)
  mod_timer(mine.timer, jiffies() + 1)
  for (let k = 0; k < ROUNDS; k++) {
    round(k)
    if ((k & 15) === 0) {
      yield* down(s.sem)
      const n = s.sem_counted
      yield* cond_resched()
      s.sem_counted = n + 1
      mine.sem_counted++
      up(s.sem)
    }
    yield* cond_resched()
  }
  BUG_ON(mine.counted !== ROUNDS, 'lost rounds')
  fetch_add(s.addr + SHARED.offset('done'), 1)
  return 0
}
const worker_sym = symbol('torture_locks', worker)

/** main - @context process */
export function main(): void {
  spin_lock_init(s.spin)
  spin_lock_init(s.bh)
  rwlock_init(s.rw)
  seqlock_init(s.seq)
  sema_init(s.sem, 1)
  for (let cpu = 0; cpu < num_cpus(); cpu++) {
    kernel_thread('torture', worker_sym, cpu, { cpu })
    kernel_thread('torture2', noise_sym, cpu, { cpu })
  }
}

/** A second process on each CPU, so that there is somebody to switch to. */
function* noise(): Generator<void, number, void> {
  while (s.done < num_cpus()) {
    tick(100)
    yield* cond_resched()
  }
  return 0
}
const noise_sym = symbol('torture_noise', noise)
