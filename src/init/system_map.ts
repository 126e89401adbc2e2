/** system_map.ts - where everything lies, for those who read RAM from outside: the machine's System.map and its pahole. */
import { placed } from '../abi/section.js'
import { symbol_name, text_hash } from '../abi/symbol.js'
import { CONTEXT_NAMES, CPU_STAT } from '../arch/cpu.js'
import { LINE_RAISED } from '../arch/irqchip.js'
import { CONFIG_WORDS, config_addr, DOORBELL, ONLINE, PANIC_LEN, PANIC_TEXT, POWER } from '../arch/machine.js'
import { STAT_RX_DOWN, STAT_RX_FILTERED, STAT_RX_MISSED, STAT_RX_OVERSIZE, STAT_RX_RUNT } from '../arch/nic_regs.js'
import { IRQ_LINES, NIC_REGS, PERCPU_BASE, PERCPU_SHIFT } from '../arch/ram.js'
import { TRACE_BYTES, TRACE_RECORDS } from '../arch/trace.js'
import { caches } from '../mm/slab.js'
import { DROP_REASONS } from '../net/core/fate.js'

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
  /** Offsets in a NIC's page of what it drops by itself. */
  nic_drops: Record<string, number>
  irq_lines: number
  line_raised: number
  cpu_stat: number
  contexts: readonly string[]
  boot: { power: number; online: number; panic_len: number; panic_text: number; doorbell: number }
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
    boot: { power: POWER, online: ONLINE, panic_len: PANIC_LEN, panic_text: PANIC_TEXT, doorbell: DOORBELL },
    config: Object.fromEntries(CONFIG_WORDS.map(name => [name, config_addr(name)])),
    variables,
    drop_reasons: DROP_REASONS,
    trace: { bytes: TRACE_BYTES, records: TRACE_RECORDS },
    caches: caches.map(c => c.name),
    symbols,
  }
}
