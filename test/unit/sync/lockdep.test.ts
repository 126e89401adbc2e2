/** The self-test of Linux's lockdep (lib/locking-selftest.c), all cases of the 2.6 era and the newer rows that fit our locks. */
import { beforeEach, describe, expect, test } from 'vitest'

globalThis.softnet_boot = {
  memory: new WebAssembly.Memory({ initial: 1024, maximum: 1024, shared: true }),
  cpu: 0,
  now: () => performance.now() * 1e6,
  lockKind: 0,
  lockdep: true,
}
const { embed, layout, Struct } = await import('../../../src/abi/layout.js')
const { DEFINE_PER_CPU } = await import('../../../src/abi/section.js')
const cpu = await import('../../../src/arch/cpu.js')
const { RAM } = await import('../../../src/arch/ram.js')
const spin = await import('../../../src/sync/spinlock.js')
const rw = await import('../../../src/sync/rwlock.js')
const sem = await import('../../../src/sched/semaphore.js')
const rwsem = await import('../../../src/sched/rwsem.js')
const lockdep = await import('../../../src/sync/lockdep.js')
const preempt = await import('../../../src/sync/preempt.js')

/** A lock of each kind: instances 0 and 1 are of one class. */
class locks extends Struct {
  declare spin: InstanceType<typeof spin.spinlock_t>
  declare rw: InstanceType<typeof rw.rwlock_t>
  declare mutex: InstanceType<typeof sem.semaphore>
  declare rwsem: InstanceType<typeof rwsem.rw_semaphore>
}
const LOCKS = layout('locks', locks, {
  spin: embed(spin.SPINLOCK),
  rw: embed(rw.RWLOCK),
  mutex: embed(sem.SEMAPHORE),
  rwsem: embed(rwsem.RW_SEMAPHORE),
})
const names = ['A', 'B', 'C', 'D', 'X'] as const
type Name = (typeof names)[number]
const all = Object.fromEntries(names.map(n => [n, DEFINE_PER_CPU(n, LOCKS)])) as Record<
  Name,
  ReturnType<typeof DEFINE_PER_CPU<locks>>
>

/** A column: how a lock of its kind is taken, given back, made. */
interface Kind {
  name: string
  lock(l: locks): void
  unlock(l: locks): void
  init(l: locks): void
}
/** What may sleep does not here: nobody else has anything. */
const run = (g: Generator<void, void, void>): void => {
  if (g.next().done !== true) throw new Error('it slept')
}
const SPIN: Kind = {
  name: 'spin',
  lock: l => spin.spin_lock(l.spin),
  unlock: l => spin.spin_unlock(l.spin),
  init: l => spin.spin_lock_init(l.spin),
}
const WLOCK: Kind = {
  name: 'wlock',
  lock: l => rw.write_lock(l.rw),
  unlock: l => rw.write_unlock(l.rw),
  init: l => rw.rwlock_init(l.rw),
}
const RLOCK: Kind = { ...WLOCK, name: 'rlock', lock: l => rw.read_lock(l.rw), unlock: l => rw.read_unlock(l.rw) }
const MUTEX: Kind = {
  name: 'mutex',
  lock: l => run(sem.down(l.mutex)),
  unlock: l => sem.up(l.mutex),
  init: l => sem.init_MUTEX(l.mutex),
}
const WSEM: Kind = {
  name: 'wsem',
  lock: l => run(rwsem.down_write(l.rwsem)),
  unlock: l => rwsem.up_write(l.rwsem),
  init: l => rwsem.init_rwsem(l.rwsem),
}
const RSEM: Kind = {
  ...WSEM,
  name: 'rsem',
  lock: l => run(rwsem.down_read(l.rwsem)),
  unlock: l => rwsem.up_read(l.rwsem),
}
const SIX = [SPIN, WLOCK, RLOCK, MUTEX, WSEM, RSEM]
const THREE = [SPIN, WLOCK, RLOCK]

/** What a test does is over at the first report, or when the lock would really stand still: a single CPU is all there is. */
class Tripped extends Error {}

function the(name: Name, instance = 0): locks {
  return all[name].cpu(instance)
}

/** How a step says that it is over. */
function trips(body: () => void): boolean {
  try {
    body()
  } catch (error) {
    if (lockdep.lockdep_reports() === 0) throw error
  }
  return lockdep.lockdep_reports() > 0
}

/** Only look at the order: the lock itself is not touched when it is held already. */
function take(kind: Kind, l: locks): void {
  const before = lockdep.lockdep_reports()
  kind.lock(l)
  if (lockdep.lockdep_reports() > before) throw new Tripped()
}
function give(kind: Kind, l: locks): void {
  kind.unlock(l)
}
function pair(kind: Kind, a: Name, b: Name): void {
  take(kind, the(a))
  take(kind, the(b))
  give(kind, the(b))
  give(kind, the(a))
}
function once(kind: Kind, a: Name): void {
  take(kind, the(a))
  give(kind, the(a))
}

interface Irq {
  name: string
  enter(): void
  exit(): void
  disable(): void
  enable(): void
}
const entered = { old: 0 }
const HARD: Irq = {
  name: 'hard',
  enter() {
    cpu.local_irq_disable()
    preempt.add_preempt_count(preempt.HARDIRQ_OFFSET)
    entered.old = cpu.enter_context(cpu.HARDIRQ, 0)
  },
  exit() {
    cpu.leave_context(entered.old)
    preempt.add_preempt_count(-preempt.HARDIRQ_OFFSET)
    cpu.local_irq_enable()
  },
  disable: () => cpu.local_irq_disable(),
  enable: () => cpu.local_irq_enable(),
}
const SOFT: Irq = {
  name: 'soft',
  enter() {
    preempt.add_preempt_count(preempt.SOFTIRQ_OFFSET)
    cpu.local_irq_disable()
    entered.old = cpu.enter_context(cpu.SOFTIRQ, 0)
  },
  exit() {
    cpu.leave_context(entered.old)
    cpu.local_irq_enable()
    preempt.add_preempt_count(-preempt.SOFTIRQ_OFFSET)
  },
  disable: () => preempt.add_preempt_count(preempt.SOFTIRQ_OFFSET),
  enable() {
    lockdep.lockdep_softirqs_on()
    preempt.add_preempt_count(-preempt.SOFTIRQ_OFFSET)
  },
}

beforeEach(() => {
  const area = cpu.cpu_area(0) >> 2
  RAM.i32[area + cpu.CPU_HELD / 4] = 0
  RAM.i32[area + cpu.CPU_PREEMPT / 4] = 0
  RAM.i32[area + 512 / 4 + 31 * 4] = 0
  cpu.cpu_reset()
  lockdep.lockdep_reset()
  for (const n of names) for (const k of [0, 1]) for (const kind of [SPIN, WLOCK, MUTEX, WSEM]) kind.init(the(n, k))
  cpu.local_irq_enable()
  lockdep.lockdep_reset()
})

const counted = { cases: 0, old: 0 }
/** One case: trips or stays silent. */
function dotest(name: string, expected: 'trips' | 'silent', body: () => void): void {
  counted.cases++
  test(`${name}: ${expected}`, () => {
    expect(trips(body), lockdep.lockdep_log.join('\n')).toBe(expected === 'trips')
  })
}
/** In each of six columns; a recursive reader alone never blocks. */
function six(name: string, body: (kind: Kind) => void, rlock: 'trips' | 'silent' = 'silent'): void {
  for (const kind of SIX) dotest(`${name} ${kind.name}`, kind === RLOCK ? rlock : 'trips', () => body(kind))
}
function orders(n: 2 | 3): number[][] {
  if (n === 2)
    return [
      [0, 1],
      [1, 0],
    ]
  return [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ]
}
/** The events in every order, in each column. */
function permuted(
  name: string,
  columns: Kind[],
  events: (kind: Kind) => (() => void)[],
  silent: Kind[] = [RLOCK],
): void {
  const n = events(SPIN).length as 2 | 3
  for (const kind of columns)
    for (const order of orders(n)) {
      const digits = order.map(k => k + 1).join('')
      dotest(`${name}/${digits} ${kind.name}`, silent.includes(kind) ? 'silent' : 'trips', () => {
        const e = events(kind)
        for (const k of order) e[k]!()
      })
    }
}

describe('deadlocks', () => {
  six('A-A', kind => {
    take(kind, the('X', 0))
    take(kind, the('X', 1))
  })
  const rows: [string, [Name, Name][]][] = [
    [
      'A-B-B-A',
      [
        ['A', 'B'],
        ['B', 'A'],
      ],
    ],
    [
      'A-B-B-C-C-A',
      [
        ['A', 'B'],
        ['B', 'C'],
        ['C', 'A'],
      ],
    ],
    [
      'A-B-C-A-B-C',
      [
        ['A', 'B'],
        ['C', 'A'],
        ['B', 'C'],
      ],
    ],
    [
      'A-B-B-C-C-D-D-A',
      [
        ['A', 'B'],
        ['B', 'C'],
        ['C', 'D'],
        ['D', 'A'],
      ],
    ],
    [
      'A-B-C-D-B-D-D-A',
      [
        ['A', 'B'],
        ['C', 'D'],
        ['B', 'D'],
        ['D', 'A'],
      ],
    ],
    [
      'A-B-C-D-B-C-D-A',
      [
        ['A', 'B'],
        ['C', 'D'],
        ['B', 'C'],
        ['D', 'A'],
      ],
    ],
  ]
  for (const [name, pairs] of rows)
    six(name, kind => {
      for (const [a, b] of pairs) pair(kind, a, b)
    })
})

describe('wrong use', () => {
  six(
    'double unlock',
    kind => {
      once(kind, 'A')
      give(kind, the('A'))
    },
    'trips',
  )
  six(
    'initialise held',
    kind => {
      take(kind, the('A'))
      kind.init(the('A'))
    },
    'trips',
  )
  for (const kind of SIX)
    dotest(`bad unlock order ${kind.name}`, 'silent', () => {
      take(kind, the('A'))
      take(kind, the('B'))
      give(kind, the('A'))
      give(kind, the('B'))
    })
})

describe('readers', () => {
  for (const [name, a, b] of [
    ['recursive read-lock', 0, 0],
    ['recursive read-lock #2', 0, 1],
  ] as const) {
    for (const kind of [RLOCK, RSEM])
      dotest(`${name} ${kind.name}`, kind === RLOCK ? 'silent' : 'trips', () => {
        take(kind, the('X', a))
        take(kind, the('X', b))
      })
  }
  for (const [r, w] of [
    [RLOCK, WLOCK],
    [RSEM, WSEM],
  ] as const) {
    dotest(`mixed read-write-lock ${r.name}`, 'trips', () => {
      take(r, the('X', 0))
      take(w, the('X', 1))
    })
    dotest(`mixed write-read-lock ${r.name}`, 'trips', () => {
      take(w, the('X', 0))
      take(r, the('X', 1))
    })
  }
})

describe('interrupts', () => {
  const safe = (irq: Irq, kind: Kind) => () => {
    irq.enter()
    once(kind, 'A')
    irq.exit()
  }
  for (const irq of [HARD, SOFT]) {
    permuted(`${irq.name}-irqs-on + irq-safe-A`, THREE, kind => [safe(irq, kind), () => once(kind, 'A')])
  }
  permuted('sirq-safe-A => hirqs-on', THREE, kind => [
    safe(SOFT, kind),
    () => {
      HARD.disable()
      take(kind, the('A'))
      HARD.enable()
      give(kind, the('A'))
    },
  ])
  for (const irq of [HARD, SOFT]) {
    permuted(`${irq.name}-safe-A + irqs-on`, THREE, kind => [
      safe(irq, kind),
      () => {
        irq.disable()
        take(kind, the('A'))
        irq.enable()
        give(kind, the('A'))
      },
    ])
    permuted(`${irq.name}-safe-A + unsafe-B #1`, THREE, kind => [
      () => pair(kind, 'A', 'B'),
      () => once(kind, 'B'),
      safe(irq, kind),
    ])
    permuted(`${irq.name}-safe-A + unsafe-B #2`, THREE, kind => [
      () => {
        irq.disable()
        pair(kind, 'A', 'B')
        irq.enable()
      },
      () => once(kind, 'B'),
      safe(irq, kind),
    ])
    permuted(`${irq.name}-irq lock-inversion`, THREE, kind => [
      () => {
        irq.disable()
        take(WLOCK, the('A'))
        take(kind, the('B'))
        give(kind, the('B'))
        give(WLOCK, the('A'))
        irq.enable()
      },
      () => once(kind, 'B'),
      () => {
        irq.enter()
        once(RLOCK, 'A')
        irq.exit()
      },
    ])
    permuted(
      `${irq.name}-irq read-recursion`,
      [RLOCK],
      kind => [
        () => {
          irq.disable()
          once(WLOCK, 'A')
          irq.enable()
        },
        () => once(kind, 'A'),
        () => {
          irq.enter()
          take(kind, the('A'))
          once(SPIN, 'B')
          give(kind, the('A'))
          irq.exit()
        },
      ],
      [RLOCK],
    )
  }
})

test('these are the 218 cases of the 2.6 era', () => {
  expect(counted.old).toBe(218)
})

describe('newer rows, for recursive readers', () => {
  counted.old = counted.cases
  /** Two locks, each taken in a way of its own. */
  const under = (k1: Kind, a: Name, k2: Kind, b: Name) => () => {
    take(k1, the(a))
    take(k2, the(b))
    give(k2, the(b))
    give(k1, the(a))
  }
  for (const [r, w] of [
    [RLOCK, WLOCK],
    [RSEM, WSEM],
  ] as const) {
    const rows: [string, Kind, Kind, 'trips' | 'silent'][] = [
      ['R-L/L-W', r, w, 'trips'],
      ['R-L/L-R', r, r, r === RLOCK ? 'silent' : 'trips'],
      ['W-L/L-W', w, w, 'trips'],
    ]
    for (const [name, first, second, expected] of rows)
      dotest(`mixed ABBA ${name} ${r.name}`, expected, () => {
        const middle = r === RLOCK ? SPIN : MUTEX
        under(first, 'X', middle, 'A')()
        under(middle, 'A', second, 'X')()
      })
  }
  const [W, R] = [WLOCK, RLOCK]
  const circles: [string, [Kind, Kind][], 'trips' | 'silent'][] = [
    [
      'W1R2_W2R3_W3R1',
      [
        [W, R],
        [W, R],
        [W, R],
      ],
      'trips',
    ],
    [
      'W1W2_R2R3_W3R1',
      [
        [W, W],
        [R, R],
        [W, R],
      ],
      'trips',
    ],
    [
      'W1W2_R2R3_R3W1',
      [
        [W, W],
        [R, R],
        [R, W],
      ],
      'silent',
    ],
    [
      'W1R2_R2R3_W3W1',
      [
        [W, R],
        [R, R],
        [W, W],
      ],
      'silent',
    ],
  ]
  const ring: [Name, Name][] = [
    ['A', 'B'],
    ['B', 'C'],
    ['C', 'A'],
  ]
  for (const [name, kinds, expected] of circles)
    for (const order of orders(3))
      dotest(`${name}/${order.map(k => k + 1).join('')}`, expected, () => {
        for (const k of order) under(kinds[k]![0], ring[k]![0], kinds[k]![1], ring[k]![1])()
      })
  for (const irq of [HARD, SOFT])
    permuted(`${irq.name}-irq read-recursion, written in the interrupt`, [WLOCK], kind => [
      () => {
        irq.disable()
        once(WLOCK, 'A')
        irq.enable()
      },
      () => once(RLOCK, 'A'),
      () => {
        irq.enter()
        take(kind, the('A'))
        once(SPIN, 'B')
        give(kind, the('A'))
        irq.exit()
      },
    ])
})
