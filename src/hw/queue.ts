/** queue.ts - a queue pair as the device sees it: where its rings lie, and how far it has come in them. */
import { load } from '../arch/atomic.js'
import { irq_line, LINE_RX_HEAD, LINE_TX_HEAD } from '../arch/irqchip.js'
import {
  Q_IRQ,
  Q_RX_BASE,
  Q_RX_BUF,
  Q_RX_DONE,
  Q_RX_SIZE,
  Q_RX_TAIL,
  Q_TX_BASE,
  Q_TX_DONE,
  Q_TX_SIZE,
  queue_consts,
  queue_regs,
} from '../arch/nic_regs.js'
import { RAM } from '../arch/ram.js'

const i32 = RAM.i32

export class Queue {
  readonly regs: number
  rx_base = 0
  rx_mask = 0
  rx_buf = 0
  tx_base = 0
  tx_mask = 0
  irq = 0
  rx_done = 0
  rx_tail = 0
  tx_done = 0
  rx_published = 0
  tx_published = 0
  rx_since = 0 // time of the last receive interrupt
  tx_since = 0 // time of the oldest sent frame that the driver was not told of
  tx_on = -1 // descriptor of the frame that is on the wire; -1: none is
  tx_left = 0 // when that frame will have left it, or the last one did
  tx_idle = true // nothing waits for the wire

  constructor(nic: number, index: number) {
    this.regs = queue_regs(nic, index)
    const c = queue_consts(nic, index) >> 2
    this.rx_base = i32[c + (Q_RX_BASE >> 2)]
    this.rx_mask = i32[c + (Q_RX_SIZE >> 2)] - 1
    this.tx_base = i32[c + (Q_TX_BASE >> 2)]
    this.tx_mask = i32[c + (Q_TX_SIZE >> 2)] - 1
    this.irq = i32[c + (Q_IRQ >> 2)]
    this.rx_buf = i32[c + (Q_RX_BUF >> 2)]
    this.rx_tail = load(this.regs + Q_RX_TAIL)
    this.rx_done = load(this.regs + Q_RX_DONE)
    this.tx_done = load(this.regs + Q_TX_DONE)
    this.rx_published = load(irq_line(this.irq) + LINE_RX_HEAD)
    this.tx_published = load(irq_line(this.irq) + LINE_TX_HEAD)
  }
}
