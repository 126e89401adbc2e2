/**
 * nic_regs.ts - the programming manual of the NIC: what the driver and the device agree on. No behaviour.
 *
 * Map of a page: 0x000 general registers, 0x080 statistics, 0x200 the host's control block (hw/control.ts), 0x400 constants of
 * 32 queue pairs, 0x1000 doorbells and counters of 32 queue pairs.
 *
 * Each NIC has one page of registers in RAM. A queue pair has its constants (written by the driver while the NIC is
 * down) and two cache lines: doorbells (driver's) and counters (device's), so that neither waits for the other. All positions count
 * descriptors since the queue was enabled and wrap at 2^32; the slot is `position & (size - 1)`.
 *
 * The device publishes RX_DONE and TX_DONE with one atomic store per batch, after the descriptors and the data; the
 * driver publishes RX_TAIL and TX_TAIL the same way. The interrupt words of the queue are those of its line in
 * irqchip.ts, whose RX_HEAD and TX_HEAD follow RX_DONE and TX_DONE, delayed by the mitigation.
 */
import { WRITE_ONCE } from './atomic.js'
import { VIRTUAL } from './cost.js'
import { NIC_PAGE_SHIFT, NIC_REGS } from './ram.js'
import { ACTOR_BOARD, actor_wake } from './turnstile.js'

/** nic_page - address of a NIC's registers. */
export function nic_page(nic: number): number {
  return NIC_REGS + (nic << NIC_PAGE_SHIFT)
}

// general registers, offsets in the page
export const NIC_CTRL = 0 // CTRL_UP: the queues are set up and the device may use them; else it is down. The bits above count
// the writes (steps of CTRL_SERIAL), so that the device sees that it was down even if it is up again when it looks.
export const NIC_MAC_HI = 4 // station address: bytes 0-3, big-endian
export const NIC_MAC_LO = 8 // bytes 4-5, in the upper half
export const NIC_QUEUES = 12 // queue pairs in use, a power of two; the flow hash picks one
export const NIC_PROMISC = 16 // 1: also frames for other stations; obeyed from the next frame on, without NIC_CTRL
export const NIC_ITR_NS = 20 // mitigation: least time between two interrupts of one line, ns
export const NIC_ITR_FRAMES = 24 // but never hold back more than this many frames; 0 means no limit
export const NIC_LINK = 28 // 1: there is a carrier (device)
export const NIC_OFFLOAD = 32 // OFF_* that the driver turned on
export const NIC_TIDV_NS = 36 // transmit interrupts only: TX_HEAD follows TX_DONE this much later (e1000's TIDV), ns, or at
// once when half of the ring waits to be freed (TX_DONE - LINE_TX_ACK >= size / 2). NIC_ITR_* do not hold it back further.
export const NIC_STATUS = 40 // NIC_CTRL as the device last obeyed it (device): what an older one allowed is over
export const NIC_CONTROL = 0x200 // to 0x3ff: control block of the host
export const CTRL_UP = 1
export const CTRL_SERIAL = 2
export const STATUS_GONE = -1 // all ones: there is no device any more
export const OFF_RX_CSUM = 1
export const OFF_TX_CSUM = 2 // without it TX_CSUM is ignored

// statistics of the device, words that wrap, offsets in the page
export const STAT_RX_FRAMES = 128 // put into a ring
export const STAT_RX_BYTES = 132
export const STAT_RX_MISSED = 136 // no buffer posted: the ring is full
export const STAT_RX_OVERSIZE = 140 // does not fit a receive buffer
export const STAT_RX_RUNT = 144 // shorter than an Ethernet header
export const STAT_RX_FILTERED = 148 // another station's address and not promiscuous: never reaches the ring
export const STAT_RX_DOWN = 152 // arrived while the NIC was down
export const STAT_TX_FRAMES = 192
export const STAT_TX_BYTES = 196
export const STAT_TX_ERRORS = 200 // bad descriptor

/** queue_consts - address of a queue pair's constants, 32 bytes. */
export function queue_consts(nic: number, queue: number): number {
  return nic_page(nic) + 0x400 + queue * 32
}
export const Q_RX_BASE = 0 // address of the receive ring
export const Q_RX_SIZE = 4 // descriptors, a power of two
export const Q_TX_BASE = 8
export const Q_TX_SIZE = 12
export const Q_IRQ = 16 // interrupt line
export const Q_RX_BUF = 20 // bytes of each receive buffer

/** queue_regs - address of a queue pair's two lines. */
export function queue_regs(nic: number, queue: number): number {
  return nic_page(nic) + 0x1000 + queue * 128
}
export const Q_RX_TAIL = 0 // receive buffers posted (driver)
export const Q_TX_TAIL = 4 // transmit descriptors posted (driver)
export const Q_RX_DONE = 64 // receive descriptors filled (device)
export const Q_TX_DONE = 68 // transmit descriptors finished (device)

// a descriptor: 16 bytes
export const DESC_SHIFT = 4
export const DESC_ADDR = 0 // of the data
export const DESC_LEN = 4 // bytes
export const DESC_FLAGS = 8
export const DESC_INFO = 12 // rx: flow hash; tx: checksum start << 16 | checksum offset, from the start of the frame

// receive flags
export const RX_EOP = 1 // every received frame fits one buffer, so always set
export const RX_CSUM_IP = 2 // IPv4 header checksum is good
export const RX_CSUM_L4 = 4 // UDP or TCP checksum is good too
// transmit flags
export const TX_EOP = 1 // last descriptor of the frame
export const TX_CSUM = 2 // fill in the ones' complement sum from checksum start to the end of the frame

/**
 * doorbell - tell the device that a register of a queue has moved on: a posted write, as to a real card. The CPU does not wait
 * until it is there, but what it wrote before is there first (x86-64 keeps the order of stores). @context any
 */
export function doorbell(reg: number, value: number): void {
  WRITE_ONCE(reg, value)
  if (VIRTUAL) actor_wake(ACTOR_BOARD, 0)
}
