/** #19: the mask of pending soft interrupts is read, changed and written back with interrupts on. */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import {
  local_irq_disable,
  local_irq_enable,
  local_irq_restore,
  local_irq_save,
  local_softirq_pending,
  set_softirq_pending,
  tick,
} from '../../arch/cpu.js'
import { __raise_softirq_irqoff, NET_RX_SOFTIRQ, NET_TX_SOFTIRQ, open_softirq } from '../../irq/softirq.js'
import { __local_bh_enable, local_bh_disable } from '../../sync/bh.js'
import { cpu_init, HERE, machine_init, raise_interrupt } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class seen extends Struct {
  declare raised: number
  declare pending: number
  declare over: number
}
const SEEN: Layout<seen> = layout('seen', seen, {
  raised: atomic(word),
  pending: atomic(word),
  over: atomic(word),
})
const s = DEFINE_STATIC('seen', SEEN)

const net_rx_sym = symbol('zoo_net_rx', () => {
  s.raised = 0 // it runs: nothing is lost
})
const net_tx_sym = symbol('zoo_net_tx', () => {})

export function setup(twin: Twin) {
  machine_init(2)
  open_softirq(NET_RX_SOFTIRQ, net_rx_sym)
  open_softirq(NET_TX_SOFTIRQ, net_tx_sym)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

function interrupt(): void {
  if (s.over !== 0) return
  __raise_softirq_irqoff(NET_RX_SOFTIRQ)
  s.raised = 1
}
export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me, interrupt)
export const describe = describe_addr

export const actors = {
  'CPU 0'({ fixed }: Shared) {
    local_bh_disable()
    const flags = fixed ? local_irq_save() : 1
    const pending = local_softirq_pending()
    tick(HERE)
    set_softirq_pending(pending | (1 << NET_TX_SOFTIRQ))
    if (fixed) local_irq_restore(flags)
    local_irq_disable()
    s.pending = local_softirq_pending()
    s.over = 1
    set_softirq_pending(0)
    __local_bh_enable()
    local_irq_enable()
  },
  device() {
    raise_interrupt(0)
  },
}

export function invariant(): void {
  if (s.raised === 1 && (s.pending & (1 << NET_RX_SOFTIRQ)) === 0)
    throw new Error('NET_RX was raised, has not run, and is not pending')
}
