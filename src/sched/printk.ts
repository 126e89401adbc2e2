/**
 * printk.ts - the kernel's log ring (kernel/printk.c): the newest bytes of what was said, lines of `<level>text`.
 *
 * Lock charter
 *   log.lock guards the ring, with interrupts off: anybody may speak.
 */
import { by, bytes, embed, type Layout, layout, Struct, word } from '../abi/layout.js'
import { DEFINE_STATIC } from '../abi/section.js'
import { RAM } from '../arch/ram.js'
import { LOG_BUF_LEN } from '../lib/limits.js'
import {
  SPINLOCK,
  spin_lock_init,
  spin_lock_irqsave,
  spin_unlock_irqrestore,
  type spinlock_t,
} from '../sync/spinlock.js'

const u8 = RAM.u8

class log_t extends Struct {
  declare lock: spinlock_t
  declare end: number
  declare buf: number
}
const LOG: Layout<log_t> = layout('log', log_t, {
  lock: embed(SPINLOCK),
  end: by('lock', word), // bytes written since boot
  buf: by('lock', bytes(LOG_BUF_LEN)),
})
const log = DEFINE_STATIC('log', LOG)

/** printk - a line of ASCII at a level of syslog, 0 (the worst) to 7. @context any */
export function printk(level: number, line: string): void {
  const text = `<${level}>${line}\n`
  const flags = spin_lock_irqsave(log.lock)
  for (let k = 0; k < text.length; k++) u8[log.buf + ((log.end + k) & (LOG_BUF_LEN - 1))] = text.charCodeAt(k)
  log.end = (log.end + text.length) | 0
  spin_unlock_irqrestore(log.lock, flags)
}

/** kmsg_text - whole lines that are still in the ring. @context a halted machine, or process */
export function kmsg_text(): string {
  const flags = spin_lock_irqsave(log.lock)
  const n = Math.min(log.end >>> 0, LOG_BUF_LEN)
  let text = ''
  for (let k = log.end - n; k !== log.end; k = (k + 1) | 0)
    text += String.fromCharCode(u8[log.buf + (k & (LOG_BUF_LEN - 1))])
  const whole = log.end >>> 0 <= LOG_BUF_LEN
  spin_unlock_irqrestore(log.lock, flags)
  return whole ? text : text.slice(text.indexOf('\n') + 1)
}

/** printk_init - @context boot, CPU 0 */
export function printk_init(): void {
  spin_lock_init(log.lock)
}
