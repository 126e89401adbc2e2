import '../../helpers/clock.js' // first: it sets what the kernel's modules find when they load
import { beforeEach, describe, expect, test } from 'vitest'
import { symbol } from '../../../src/abi/symbol.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import {
  NF_ACCEPT,
  NF_DROP,
  NF_HOOK_OPS,
  NF_IP_FORWARD,
  NF_IP_LOCAL_IN,
  NF_IP_LOCAL_OUT,
  NF_IP_POST_ROUTING,
  NF_IP_PRE_ROUTING,
  NF_QUEUE,
  NF_REPEAT,
  NF_STOLEN,
  type nf_hook_ops,
  nf_register_hook,
  nf_unregister_hook,
} from '../../../src/net/core/netfilter.js'
import { kfree_skb } from '../../../src/net/core/skbuff.js'
import type { net_device, sk_buff } from '../../../src/net/core/types.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { icmpFrame, udpFrame } from '../../helpers/frames.js'
import { conserved, Script } from '../../helpers/script.js'
import { ip } from '../../helpers/solo.js'

const s = new Script({
  ports: [
    { addresses: [{ local: ip('10.0.0.1'), prefixlen: 24 }] },
    { addresses: [{ local: ip('10.0.1.1'), prefixlen: 24 }] },
  ],
  neighbours: [
    { address: ip('10.0.0.2'), dev: 'eth0', mac: { hi: 0x02000000, lo: 0x102 } },
    { address: ip('10.0.1.2'), dev: 'eth1', mac: { hi: 0x02000000, lo: 0x202 } },
  ],
})
const NAMES = ['PRE_ROUTING', 'LOCAL_IN', 'FORWARD', 'LOCAL_OUT', 'POST_ROUTING']
const log: string[] = []
const verdict = { now: NF_ACCEPT, repeats: 0 }
const dev = (d: net_device | null): string => (d === null ? '-' : `dev${d.ifindex}`)
const note = symbol('test_note', (hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null) => {
  log.push(`${NAMES[hook]} ${dev(indev)} ${dev(outdev)}`)
  if (verdict.now === NF_REPEAT && verdict.repeats-- > 0) return NF_REPEAT
  if (verdict.now === NF_STOLEN) kfree_skb(skb)
  return verdict.now === NF_REPEAT ? NF_ACCEPT : verdict.now
})
const late = symbol('test_late', (hook: number) => {
  log.push(`late ${NAMES[hook]}`)
  return NF_ACCEPT
})

function register(hooknum: number, hook: typeof note, priority: number): nf_hook_ops {
  const ops = NF_HOOK_OPS.make(kmalloc(NF_HOOK_OPS.size))
  ops.hook = hook
  ops.hooknum = hooknum
  ops.priority = priority
  nf_register_hook(ops)
  return ops
}
const all = [NF_IP_PRE_ROUTING, NF_IP_LOCAL_IN, NF_IP_FORWARD, NF_IP_LOCAL_OUT, NF_IP_POST_ROUTING]
const registered = all.map(h => register(h, note, 0))

const through = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' })
const ping = icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8)

beforeEach(() => {
  log.length = 0
  verdict.now = NF_ACCEPT
})

describe('the five hooks', () => {
  test('on the way through', () => {
    expect(s.send(0, through)[1]).toHaveLength(1)
    expect(log.map(l => l.split(' ')[0])).toEqual(['PRE_ROUTING', 'FORWARD', 'POST_ROUTING'])
    expect(log[0]).not.toMatch(/ - -$/)
    expect(
      log[1]!
        .split(' ')
        .slice(1)
        .every(d => d.startsWith('dev')),
    ).toBe(true)
  })
  test('to this machine, and out of it', () => {
    expect(s.send(0, ping)[0]).toHaveLength(1)
    expect(log.map(l => l.split(' ')[0])).toEqual(['PRE_ROUTING', 'LOCAL_IN', 'LOCAL_OUT', 'POST_ROUTING'])
  })
  test('a dropped packet is counted, and gets no further', () => {
    verdict.now = NF_DROP
    const f = s.account(() => expect(s.send(0, through).flat()).toEqual([]))
    expect(f).toMatchObject({ received: 1, drops: { netfilter: 1 } })
    expect(log).toHaveLength(1)
  })
  test.each([
    ['QUEUE without a queue handler', NF_QUEUE],
    ['what is no verdict', 77],
    ['a negative one', -1],
  ])('%s frees the packet', (_what, now) => {
    verdict.now = now
    const f = s.account(() => expect(s.send(0, through).flat()).toEqual([]))
    expect(f).toMatchObject({ received: 1, drops: { netfilter: 1 } })
    expect(log).toHaveLength(1)
  })
  test('a stolen one is the hook’s', () => {
    verdict.now = NF_STOLEN
    s.account(() => s.send(0, through))
    expect(log).toHaveLength(1)
  })
  test('REPEAT asks the same hook again', () => {
    verdict.now = NF_REPEAT
    verdict.repeats = 2
    expect(s.send(0, through)[1]).toHaveLength(1)
    expect(log.filter(l => l.startsWith('PRE_ROUTING'))).toHaveLength(3)
  })
  test('the lower priority value comes first', () => {
    const second = register(NF_IP_FORWARD, late as unknown as typeof note, 10)
    const first = register(NF_IP_FORWARD, late as unknown as typeof note, -10)
    s.send(0, through)
    expect(log.map(l => l.replace(/ (dev|-).*/, ''))).toEqual([
      'PRE_ROUTING',
      'late FORWARD',
      'FORWARD',
      'late FORWARD',
      'POST_ROUTING',
    ])
    registered.push(first, second)
  })
  test('nobody is called any more once they are unregistered', () => {
    kernel_thread(
      'unregister',
      symbol('test_unregister', function* () {
        for (const ops of registered) yield* nf_unregister_hook(ops)
        return 0
      }),
      0,
    )
    s.pass(200)
    log.length = 0
    expect(s.send(0, through)[1]).toHaveLength(1)
    expect(log).toEqual([])
    for (const ops of registered) kfree(ops.addr)
  })
})

test('nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
