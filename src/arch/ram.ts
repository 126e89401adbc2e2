/**
 * ram.ts - the shared image that holds every kernel object, and its map.
 *
 *   0x000000  page 0           never mapped: address 0 is NULL
 *   0x001000  boot page        power state, configuration, heap pointer
 *   0x002000  interrupt lines  64 lines of 128 bytes (irqchip.ts)
 *   0x004000  turnstile        actors and their clocks (turnstile.ts)
 *   0x005000  costs            cycles of each function, from the profile (cost.ts)
 *   0x006000  panic text       16 KiB
 *   0x010000  NIC registers    8 KiB for each of 8 NICs (nic_regs.ts)
 *   0x020000  statics          .data and .bss, placed by DEFINE_STATIC in module order
 *   0x100000  per-CPU areas    32 of 64 KiB; the first three cache lines of each belong to arch
 *   0x300000  heap             carved at boot by mm: slab caches, packet buffers, rings
 *
 * Addresses are byte offsets. Kernel words are int32; packet bytes go through `dv`, whose default order is the network's.
 */
import { boot } from './boot.js'

export interface Ram {
  readonly buffer: SharedArrayBuffer
  readonly i32: Int32Array
  readonly u8: Uint8Array
  readonly f64: Float64Array
  readonly dv: DataView
  readonly size: number
}

const buffer = boot.memory.buffer as unknown as SharedArrayBuffer

export const RAM: Ram = {
  buffer,
  i32: new Int32Array(buffer),
  u8: new Uint8Array(buffer),
  f64: new Float64Array(buffer),
  dv: new DataView(buffer),
  size: buffer.byteLength,
}

export const BOOT_PAGE = 0x1000
export const IRQ_LINES = 0x2000
export const TURNSTILE = 0x4000
export const COSTS = 0x5000
export const PANIC_TEXT = 0x6000
export const PANIC_MAX = 0x4000
export const NIC_REGS = 0x10000
export const NIC_PAGE_SHIFT = 13
export const STATIC_BASE = 0x20000
export const STATIC_END = 0x100000
export const PERCPU_BASE = 0x100000
export const PERCPU_SHIFT = 16
export const HEAP_BASE = 0x300000

/** memzero - clear `len` bytes at `addr`; both multiples of 4. */
export function memzero(addr: number, len: number): void {
  i32.fill(0, addr >> 2, (addr + len) >> 2)
}
const i32 = RAM.i32

/** memcpy - copy `len` bytes inside RAM. */
export function memcpy(dst: number, src: number, len: number): void {
  if (len >= 256 || ((dst | src) & 3) !== 0) {
    u8.copyWithin(dst, src, src + len)
    return
  }
  let d = dst >> 2
  let s = src >> 2
  const end = s + (len >> 2)
  while (s < end) i32[d++] = i32[s++]
  for (let k = len & ~3; k < len; k++) u8[dst + k] = u8[src + k]
}
const u8 = RAM.u8
