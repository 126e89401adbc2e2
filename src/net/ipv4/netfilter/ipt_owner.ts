/**
 * ipt_owner.ts - whose program sends it (ipt_owner.c). A module.
 *
 * Locks: the program's side of a socket goes with sk_callback_lock held for writing, and is looked at with it held for reading,
 * below a table's lock. 2.6.11 looks without it.
 *
 * Data: uid, what is asked (1: the uid), what of it is inverted. The original's pid, session and command are refused on SMP by
 * itself; there are no groups.
 */
import { RAM } from '../../../arch/ram.js'
import { read_lock_bh, read_unlock_bh } from '../../../sync/rwlock.js'
import { SOCK } from '../../core/sock_types.js'
import type { sk_buff } from '../../core/types.js'
import { define_match, NO } from './ip_tables.js'
import { says } from './ipt_matches.js'
import { extension_module } from './ipt_module.js'

const i32 = RAM.i32
const IPT_OWNER_UID = 1

function owner_match(skb: sk_buff, _in: unknown, _out: unknown, info: number): number {
  if (skb.sk === 0) return NO
  const sk = SOCK.ref(skb.sk)
  read_lock_bh(sk.sk_callback_lock)
  const sock = sk.sk_socket
  const uid = sock === null || sock.file === 0 ? -1 : sock.uid // a socket of the kernel's has no file
  read_unlock_bh(sk.sk_callback_lock)
  const w = info >> 2
  return uid < 0 ? NO : says((uid === i32[w]) !== ((i32[w + 2] & IPT_OWNER_UID) !== 0))
}
define_match('owner', 3, owner_match, (_t, _e, info, mask) => {
  const w = info >> 2
  // Only what a program of this machine sends has an owner: OUTPUT, POSTROUTING.
  return (mask & 0b00111) === 0 && i32[w + 1] === IPT_OWNER_UID && (i32[w + 2] & ~IPT_OWNER_UID) === 0
})
extension_module('owner', ['match'])
