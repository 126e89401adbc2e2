/** mib.ts - the per-CPU IP counters. */
import { DEFINE_PER_CPU } from '../../abi/section.js'
import { IP_MIB_LAYOUT } from './types.js'

export const ip_statistics = DEFINE_PER_CPU('ip_statistics', IP_MIB_LAYOUT)
/** This CPU's counters. */
export const ip_stats = ip_statistics.mine
