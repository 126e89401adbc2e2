/** A packet in pieces, of which one does not get out. What pieces look like: test/net/router.test.ts. */
import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import {
  NF_ACCEPT,
  NF_DROP,
  NF_HOOK_OPS,
  NF_IP_POST_ROUTING,
  NF_STOLEN,
  nf_register_hook,
  nf_unregister_hook,
} from '../../../src/net/core/netfilter.js'
import { kfree_skb } from '../../../src/net/core/skbuff.js'
import type { sk_buff } from '../../../src/net/core/types.js'
import { ip_statistics } from '../../../src/net/ipv4/mib.js'
import { ip_frag_off, ip_protocol } from '../../../src/net/wire/ipv4.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { counting, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }], mtu: 576 },
  ],
  neighbours: [{ address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } }],
})
const mib = ip_statistics.cpu(0)
const seen: number[] = []
/** What the hook says to the second piece. */
const verdict = { now: NF_ACCEPT }
const ops = NF_HOOK_OPS.make(kmalloc(NF_HOOK_OPS.size))
ops.hook = symbol('test_pieces', (_hook: number, skb: sk_buff) => {
  if (ip_protocol(skb.nh) !== 17) return NF_ACCEPT
  const second = seen.push((ip_frag_off(skb.nh) & 0x1fff) * 8) === 2
  if (second && verdict.now === NF_STOLEN) kfree_skb(skb)
  return second ? verdict.now : NF_ACCEPT
})
ops.hooknum = NF_IP_POST_ROUTING
ops.priority = 0
nf_register_hook(ops)

beforeEach(() => {
  seen.length = 0
})

/** A packet of three pieces: pieces that came to the hook, frames that left, and how the counters changed. */
function send(dst: string): { pieces: number[]; sent: number; counts: number[]; drops: Record<string, number> } {
  const counts = (): number[] => [mib.FragOKs, mib.FragFails, mib.FragCreates]
  const before = counts()
  let sent = 0
  const { drops } = s.account(() => {
    sent = s.send(0, udpFrame({ src: '10.0.0.2', dst }, counting(1400)))[1]!.length
  })
  return { pieces: [...seen], sent, counts: counts().map((n, k) => n - before[k]!), drops }
}

test('all pieces get out', () => {
  expect(send('10.0.1.2')).toEqual({ pieces: [0, 552, 1104], sent: 3, counts: [1, 0, 3], drops: {} })
})
test('after one that was dropped the others are not sent, and the packet counts as failed', () => {
  verdict.now = NF_DROP
  expect(send('10.0.1.2')).toEqual({ pieces: [0, 552], sent: 1, counts: [0, 1, 2], drops: {} })
})
test('one that a hook keeps for itself did not fail', () => {
  verdict.now = NF_STOLEN
  expect(send('10.0.1.2')).toEqual({ pieces: [0, 552, 1104], sent: 2, counts: [1, 0, 3], drops: {} })
})
test('a neighbour that nobody knows is tried once', () => {
  const drops = { neigh_unresolved: 1 }
  expect(send('10.0.1.77')).toEqual({ pieces: [0], sent: 0, counts: [0, 1, 1], drops })
})

test('nothing leaks', () => {
  kernel_thread(
    'unregister',
    symbol('test_unregister', function* () {
      yield* nf_unregister_hook(ops)
      return 0
    }),
    0,
  )
  s.pass(200)
  kfree(ops.addr)
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
