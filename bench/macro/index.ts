/** index.ts - every measure, in the order of the table. */
import type { Measure } from '../lib/measure.js'
import { calibrate } from './calibrate.js'
import { cores } from './cores.js'
import { boot, heap } from './footprint.js'
import { forward } from './forward.js'
import { fuzz } from './fuzz.js'
import { contention, uncontended } from './locks.js'
import { micro } from './micro.js'
import { netfilter } from './netfilter.js'
import { proofs } from './proofs.js'
import { rcu } from './rcu.js'
import { replays } from './replays.js'
import { rivals } from './rivals.js'
import { udp } from './udp.js'
import { virtual } from './virtual.js'

export const MEASURES: readonly Measure[] = [
  forward,
  netfilter,
  uncontended,
  contention,
  rcu,
  cores,
  heap,
  boot,
  virtual,
  udp,
  calibrate,
  micro,
  proofs,
  replays,
  fuzz,
  rivals,
]
