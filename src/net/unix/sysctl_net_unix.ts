/** sysctl_net_unix.ts - net.unix.max_dgram_qlen. No lock: one word, read when a socket is made. */
import { atomic, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { MAX_DGRAM_QLEN } from '../../lib/limits.js'
import { sysctl_word } from '../core/sysctl.js'

class unix_sysctl extends Struct {
  declare max_dgram_qlen: number
}
const SYSCTL: Layout<unix_sysctl> = layout('unix_sysctl', unix_sysctl, {
  max_dgram_qlen: atomic(word), // messages that wait in a new socket, but for its peer's
})
export const unix_ctl = DEFINE_STATIC('unix_sysctl', SYSCTL)

sysctl_word('net.unix.max_dgram_qlen', () => unix_ctl, 'max_dgram_qlen', 0, 0x7fffffff)

/** unix_sysctl_init - @context boot, CPU 0 */
export function unix_sysctl_init(): void {
  unix_ctl.max_dgram_qlen = MAX_DGRAM_QLEN
}
