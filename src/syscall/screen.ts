/** screen.ts - the two system calls of a screening process: get a packet that waits, give it back with a verdict. */

import { drop_reason } from '../net/core/fate.js'
import { kfree_skb } from '../net/core/skbuff.js'
import { SKB } from '../net/core/types.js'
import { ip_forward_finish } from '../net/ipv4/ip_forward.js'
import { screen_take } from '../net/ipv4/screen.js'
import { local_bh_disable, local_bh_enable } from '../sync/bh.js'
import { syscall_enter, syscall_exit } from './entry.js'

const REJECTED = drop_reason('netfilter')

/** sys_screen_read - blocks until a packet waits. @context process @returns a handle for sys_screen_verdict */
export function* sys_screen_read(): Generator<void, number, void> {
  syscall_enter()
  const skb = yield* screen_take()
  syscall_exit()
  return skb.addr
}

/** sys_screen_verdict - @context process */
export function sys_screen_verdict(handle: number, accept: boolean): void {
  syscall_enter()
  const skb = SKB.ref(handle)
  local_bh_disable()
  if (accept) ip_forward_finish(skb)
  else kfree_skb(skb, REJECTED)
  local_bh_enable()
  syscall_exit()
}
