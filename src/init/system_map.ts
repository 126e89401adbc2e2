/** system_map.ts - where everything lies, for those who read RAM from outside: the machine's System.map and its pahole. */
import { placed } from '../abi/section.js'
import { symbol_name, text_hash } from '../abi/symbol.js'
import { cost_names, MAX_COSTS } from '../arch/cost.js'
import {
  CONTEXT_NAMES,
  CPU_CONTEXT,
  CPU_CURRENT,
  CPU_HELD,
  CPU_HELD_STACK,
  CPU_IF,
  CPU_LOCKSTAT,
  CPU_PREEMPT,
  CPU_STAT,
  CPU_TALLY,
} from '../arch/cpu.js'
import { LINE_RAISED } from '../arch/irqchip.js'
import {
  CONFIG_WORDS,
  config_addr,
  DOORBELL,
  DOORBELL_ARG,
  DOORBELL_CPU_DOWN,
  DOORBELL_CPU_UP,
  DOORBELL_DONE,
  DOORBELL_NIC_ADD,
  DOORBELL_NIC_DEL,
  DOORBELL_OP,
  DOORBELL_RESULT,
  ONLINE,
  PANIC_LEN,
  POWER,
} from '../arch/machine.js'
import { STAT_RX_DOWN, STAT_RX_FILTERED, STAT_RX_MISSED, STAT_RX_OVERSIZE, STAT_RX_RUNT } from '../arch/nic_regs.js'
import { COSTS, IRQ_LINES, NIC_PAGE_SHIFT, NIC_REGS, PANIC_TEXT, PERCPU_BASE, PERCPU_SHIFT } from '../arch/ram.js'
import { TRACE_BYTES, TRACE_RECORDS } from '../arch/trace.js'
import {
  ACTOR_SHIFT,
  TURN,
  TURN_CPUS,
  TURN_HANDOVERS,
  TURN_HASH,
  TURN_LAG,
  TURN_LIMIT,
  TURN_NS,
  TURN_SEED,
  TURN_SLACK,
  TURN_SPIN,
  TURN_STIR,
  TURN_TABLE,
} from '../arch/turnstile.js'
import { caches } from '../mm/slab.js'
import { DROP_REASONS } from '../net/core/fate.js'
import { TASK } from '../sched/task.js'
import { LOCKSTAT_ENTRIES, LOCKSTAT_SIZE } from '../sync/lockstat.js'

export interface SystemVariable {
  kind: 'static' | 'percpu'
  /** Address of a static; offset in a CPU's area of a per-CPU variable. */
  offset: number
  fields: Record<string, number>
}

export interface SystemMap {
  hash: number
  percpu_base: number
  percpu_shift: number
  nic_regs: number
  nic_page_shift: number
  /** Offsets in a NIC's page of what it drops by itself. */
  nic_drops: Record<string, number>
  irq_lines: number
  line_raised: number
  cpu_stat: number
  contexts: readonly string[]
  boot: { power: number; online: number; panic_len: number; panic_text: number }
  /** Requests of the host to a machine that runs. */
  doorbell: {
    seq: number
    done: number
    op: number
    arg: number
    result: number
    cpu_down: number
    cpu_up: number
    nic_del: number
    nic_add: number
  }
  /** Offsets of a CPU's own registers in its area. */
  registers: { irq_flag: number; preempt: number; current: number; context: number; held: number; held_stack: number }
  /** Offsets in a task_struct. */
  task: Record<string, number>
  turnstile: {
    turn: number
    cpus: number
    seed: number
    spin: number
    hash: number
    handovers: number
    limit: number
    ns_per_cycle: number
    slack: number
    stir: number
    lag: number
    table: number
    shift: number
  }
  /** Cycles of each function: address of the table, names in its order, where each CPU tallies them by context. */
  costs: { table: number; names: readonly string[]; tally: number; max: number }
  lockstat: { offset: number; entries: number; size: number }
  config: Record<string, number>
  variables: Record<string, SystemVariable>
  drop_reasons: readonly string[]
  trace: { bytes: number; records: number }
  caches: readonly string[]
  symbols: readonly string[]
}

/** system_map - complete once all modules are loaded. */
export function system_map(): SystemMap {
  const variables: Record<string, SystemVariable> = {}
  for (const p of placed) variables[p.name] = { kind: p.kind, offset: p.offset, fields: p.layout.offsets }
  const symbols: string[] = []
  for (let sym = 0; !symbol_name(sym).startsWith('?'); sym++) symbols.push(symbol_name(sym))
  return {
    hash: text_hash(),
    percpu_base: PERCPU_BASE,
    percpu_shift: PERCPU_SHIFT,
    nic_regs: NIC_REGS,
    nic_page_shift: NIC_PAGE_SHIFT,
    nic_drops: {
      nic_ring_full: STAT_RX_MISSED,
      nic_oversize: STAT_RX_OVERSIZE,
      nic_runt: STAT_RX_RUNT,
      nic_other_host: STAT_RX_FILTERED,
      nic_down: STAT_RX_DOWN,
    },
    irq_lines: IRQ_LINES,
    line_raised: LINE_RAISED,
    cpu_stat: CPU_STAT,
    contexts: CONTEXT_NAMES,
    boot: { power: POWER, online: ONLINE, panic_len: PANIC_LEN, panic_text: PANIC_TEXT },
    doorbell: {
      seq: DOORBELL,
      done: DOORBELL_DONE,
      op: DOORBELL_OP,
      arg: DOORBELL_ARG,
      result: DOORBELL_RESULT,
      cpu_down: DOORBELL_CPU_DOWN,
      cpu_up: DOORBELL_CPU_UP,
      nic_del: DOORBELL_NIC_DEL,
      nic_add: DOORBELL_NIC_ADD,
    },
    registers: {
      irq_flag: CPU_IF,
      preempt: CPU_PREEMPT,
      current: CPU_CURRENT,
      context: CPU_CONTEXT,
      held: CPU_HELD,
      held_stack: CPU_HELD_STACK,
    },
    task: TASK.offsets,
    turnstile: {
      turn: TURN,
      cpus: TURN_CPUS,
      seed: TURN_SEED,
      spin: TURN_SPIN,
      hash: TURN_HASH,
      handovers: TURN_HANDOVERS,
      limit: TURN_LIMIT,
      ns_per_cycle: TURN_NS,
      slack: TURN_SLACK,
      stir: TURN_STIR,
      lag: TURN_LAG,
      table: TURN_TABLE,
      shift: ACTOR_SHIFT,
    },
    costs: { table: COSTS, names: [...cost_names()], tally: CPU_TALLY, max: MAX_COSTS },
    lockstat: { offset: CPU_LOCKSTAT, entries: LOCKSTAT_ENTRIES, size: LOCKSTAT_SIZE },
    config: Object.fromEntries(CONFIG_WORDS.map(name => [name, config_addr(name)])),
    variables,
    drop_reasons: DROP_REASONS,
    trace: { bytes: TRACE_BYTES, records: TRACE_RECORDS },
    caches: caches.map(c => c.name),
    symbols,
  }
}
