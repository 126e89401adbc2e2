/** index.ts - every measure, in the order of the table. */
import type { Measure } from '../lib/measure.js'
import { contention, uncontended } from './locks.js'
import { micro } from './micro.js'
import { rivals } from './rivals.js'

export const MEASURES: readonly Measure[] = [uncontended, contention, micro, rivals]
