/** bpf.ts - runs a filter over a frame, as the kernel does. Needs a machine (Solo, Script). */
import { RAM } from '../../src/arch/ram.js'
import { sk_chk_filter, sk_run_filter } from '../../src/net/core/filter.js'
import { alloc_skb, kfree_skb, skb_put } from '../../src/net/core/skbuff.js'
import type { sk_buff } from '../../src/net/core/types.js'
import { assemble, type Insn } from '../../src/user/bpf.js'

function packet(bytes: Uint8Array): sk_buff {
  const skb = alloc_skb(Math.max(bytes.length, 60))!
  RAM.u8.set(bytes, skb_put(skb, bytes.length))
  skb.mac = skb.data
  skb.nh = skb.data + 14
  return skb
}

/** check - what the kernel says of a filter: 0, -EINVAL. */
export function check(insns: readonly Insn[]): number {
  const program = packet(assemble(insns))
  const err = sk_chk_filter(program.data, insns.length)
  kfree_skb(program, 0)
  return err
}

/** wanted - how many bytes of the frame the filter wants. Throws if it is none. */
export function wanted(insns: readonly Insn[], frame: Uint8Array): number {
  const [program, skb] = [packet(assemble(insns)), packet(frame)]
  if (sk_chk_filter(program.data, insns.length) !== 0) throw new Error('no filter')
  const n = sk_run_filter(skb, program.data, insns.length)
  kfree_skb(skb, 0)
  kfree_skb(program, 0)
  return n
}
