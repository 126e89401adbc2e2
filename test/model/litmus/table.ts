/**
 * table.ts - the litmus tests of the Linux-kernel memory model (tools/memory-model/litmus-tests), as little programs.
 *
 * A register gets the number of its operation among those of its actor that read. What the original does with barriers is
 * said in terms of this machine, which has only plain accesses and sequentially consistent atomic ones: an acquire or release
 * is an atomic load or store, smp_mb() an atomic operation on a word of one's own, and smp_wmb() is the atomic store that it
 * protects, as in the kernel's sources here; smp_rmb() the atomic load after it.
 */
export type Op =
  | ['R' | 'Racq' | 'deref', Place] // read: READ_ONCE, smp_load_acquire, rcu_dereference and a read of what that points to
  | ['W' | 'Wrel', Place, number | { reg: number }] // write: WRITE_ONCE, smp_store_release
  | ['assign', Place] // rcu_assign_pointer: to the word at this place
  | ['mb']
  | ['if', number] // go on only when this register is not 0
  | ['lock' | 'unlock' | 'is_locked', 0 | 1]
  | ['rcu_lock' | 'rcu_unlock']
export type Place = 'x' | 'y' | 'z'

/** What is asked for: values of registers (`0:1` is the second one of actor 0) and of words at the end. */
export type Outcome = Record<string, number>

export interface Litmus {
  name: string
  /** As the header of the test says. */
  result: 'Never' | 'Sometimes'
  actors: Op[][]
  exists: Outcome
  /** Of a 'Sometimes': the memory models that show it; none: what shows it is not modelled. */
  shown: ('sc' | 'tso' | 'pso')[]
}

const never = (name: string, exists: Outcome, ...actors: Op[][]): Litmus => ({
  name,
  result: 'Never',
  actors,
  exists,
  shown: [],
})
const sometimes = (name: string, shown: Litmus['shown'], exists: Outcome, ...actors: Op[][]): Litmus => ({
  name,
  result: 'Sometimes',
  actors,
  exists,
  shown,
})

const W = (place: Place, value: number | { reg: number } = 1): Op => ['W', place, value]
const Wrel = (place: Place, value = 1): Op => ['Wrel', place, value]
const R = (place: Place): Op => ['R', place]
const Racq = (place: Place): Op => ['Racq', place]
const mb: Op = ['mb']
const locked = (lock: 0 | 1, ...ops: Op[]): Op[] => [['lock', lock], ...ops, ['unlock', lock]]

const BUFFERED: Litmus['shown'] = ['tso', 'pso']
const PER_WORD: Litmus['shown'] = ['pso']
const NOT_MODELLED: Litmus['shown'] = []

export const LITMUS: readonly Litmus[] = [
  never('CoRR+poonceonce+Once', { '1:0': 1, '1:1': 0 }, [W('x')], [R('x'), R('x')]),
  never('CoRW+poonceonce+Once', { '0:0': 2, x: 2 }, [R('x'), W('x')], [W('x', 2)]),
  never('CoWR+poonceonce+Once', { '0:0': 2, x: 1 }, [W('x'), R('x')], [W('x', 2)]),
  never('CoWW+poonceonce', { x: 1 }, [W('x'), W('x', 2)]),
  never(
    'dep+plain',
    { '0:0': 1, '1:0': 1 },
    [R('x'), W('z', { reg: 0 }), R('z'), W('y', { reg: 1 })],
    [R('y'), Wrel('x')],
  ),
  never(
    'IRIW+fencembonceonces+OnceOnce',
    { '1:0': 1, '1:1': 0, '3:0': 1, '3:1': 0 },
    [W('x')],
    [R('x'), mb, R('y')],
    [W('y')],
    [R('y'), mb, R('x')],
  ),
  sometimes(
    'IRIW+poonceonces+OnceOnce',
    NOT_MODELLED,
    { '1:0': 1, '1:1': 0, '3:0': 1, '3:1': 0 },
    [W('x')],
    [R('x'), R('y')],
    [W('y')],
    [R('y'), R('x')],
  ),
  never(
    'ISA2+pooncelock+pooncelock+pombonce',
    { '1:0': 1, '2:0': 1, '2:1': 0 },
    locked(0, W('x'), W('y')),
    locked(0, R('y'), W('z')),
    [R('z'), mb, R('x')],
  ),
  sometimes(
    'ISA2+poonceonces',
    PER_WORD,
    { '1:0': 1, '2:0': 1, '2:1': 0 },
    [W('x'), W('y')],
    [R('y'), W('z')],
    [R('z'), R('x')],
  ),
  never(
    'ISA2+pooncerelease+poacquirerelease+poacquireonce',
    { '1:0': 1, '2:0': 1, '2:1': 0 },
    [W('x'), Wrel('y')],
    [Racq('y'), Wrel('z')],
    [Racq('z'), R('x')],
  ),
  never('LB+fencembonceonce+ctrlonceonce', { '0:0': 1, '1:0': 1 }, [R('x'), ['if', 0], W('y')], [R('y'), mb, W('x')]),
  never('LB+poacquireonce+pooncerelease', { '0:0': 1, '1:0': 1 }, [R('x'), Wrel('y')], [Racq('y'), W('x')]),
  sometimes('LB+poonceonces', NOT_MODELLED, { '0:0': 1, '1:0': 1 }, [R('x'), W('y')], [R('y'), W('x')]),
  never(
    'LB+unlocklockonceonce+poacquireonce',
    { '0:0': 1, '1:0': 1 },
    [...locked(0, R('x')), ...locked(0, W('y'))],
    [Racq('y'), W('x')],
  ),
  never('MP+fencewmbonceonce+fencermbonceonce', { '1:0': 1, '1:1': 0 }, [W('x'), Wrel('y')], [R('y'), Racq('x')]),
  never(
    'MP+onceassign+derefonce',
    { '1:0': 1, '1:1': 0 },
    [W('x'), ['assign', 'x']],
    [['rcu_lock'], ['deref', 'x'], ['rcu_unlock']],
  ),
  never(
    'MP+polockmbonce+poacquiresilsil',
    { '1:0': 1, '1:1': 0, '1:2': 1 },
    [['lock', 0], mb, W('x'), ['unlock', 0]],
    [Racq('x'), ['is_locked', 0], ['is_locked', 0]],
  ),
  sometimes(
    'MP+polockonce+poacquiresilsil',
    NOT_MODELLED,
    { '1:0': 1, '1:1': 0, '1:2': 1 },
    [['lock', 0], W('x'), ['unlock', 0]],
    [Racq('x'), ['is_locked', 0], ['is_locked', 0]],
  ),
  never('MP+polocks', { '1:0': 1, '1:1': 0 }, [W('x'), ...locked(0, W('y'))], [...locked(0, R('y')), R('x')]),
  sometimes('MP+poonceonces', PER_WORD, { '1:0': 1, '1:1': 0 }, [W('x'), W('y')], [R('y'), R('x')]),
  never('MP+pooncerelease+poacquireonce', { '1:0': 1, '1:1': 0 }, [W('x'), Wrel('y')], [Racq('y'), R('x')]),
  never('MP+porevlocks', { '1:0': 1, '1:1': 0 }, [...locked(0, W('x')), W('y')], [R('y'), ...locked(0, R('x'))]),
  never(
    'MP+unlocklockonceonce+fencermbonceonce',
    { '1:0': 1, '1:1': 0 },
    [...locked(0, W('x')), ...locked(1, W('y'))],
    [R('y'), Racq('x')],
  ),
  never('R+fencembonceonces', { y: 2, '1:0': 0 }, [W('x'), mb, W('y')], [W('y', 2), mb, R('x')]),
  sometimes('R+poonceonces', BUFFERED, { y: 2, '1:0': 0 }, [W('x'), W('y')], [W('y', 2), R('x')]),
  never('S+fencewmbonceonce+poacquireonce', { x: 2, '1:0': 1 }, [W('x', 2), Wrel('y')], [Racq('y'), W('x')]),
  sometimes('S+poonceonces', PER_WORD, { x: 2, '1:0': 1 }, [W('x', 2), W('y')], [R('y'), W('x')]),
  never('SB+fencembonceonces', { '0:0': 0, '1:0': 0 }, [W('x'), mb, R('y')], [W('y'), mb, R('x')]),
  sometimes('SB+poonceonces', BUFFERED, { '0:0': 0, '1:0': 0 }, [W('x'), R('y')], [W('y'), R('x')]),
  sometimes(
    'SB+rfionceonce-poonceonces',
    BUFFERED,
    { '0:0': 1, '0:1': 0, '1:0': 1, '1:1': 0 },
    [W('x'), R('x'), R('y')],
    [W('y'), R('y'), R('x')],
  ),
  sometimes(
    'WRC+poonceonces+Once',
    NOT_MODELLED,
    { '1:0': 1, '2:0': 1, '2:1': 0 },
    [W('x')],
    [R('x'), W('y')],
    [R('y'), R('x')],
  ),
  never(
    'WRC+pooncerelease+fencermbonceonce+Once',
    { '1:0': 1, '2:0': 1, '2:1': 0 },
    [W('x')],
    [R('x'), Wrel('y')],
    [R('y'), Racq('x')],
  ),
  never(
    'Z6.0+pooncelock+poonceLock+pombonce',
    { '1:0': 1, z: 2, '2:0': 0 },
    locked(0, W('x'), W('y')),
    locked(0, mb, R('y'), W('z')),
    [W('z', 2), mb, R('x')],
  ),
  sometimes(
    'Z6.0+pooncelock+pooncelock+pombonce',
    NOT_MODELLED,
    { '1:0': 1, z: 2, '2:0': 0 },
    locked(0, W('x'), W('y')),
    locked(0, R('y'), W('z')),
    [W('z', 2), mb, R('x')],
  ),
  sometimes(
    'Z6.0+pooncerelease+poacquirerelease+fencembonceonce',
    NOT_MODELLED,
    { '1:0': 1, z: 2, '2:0': 0 },
    [W('x'), Wrel('y')],
    [Racq('y'), Wrel('z')],
    [W('z', 2), mb, R('x')],
  ),
]
