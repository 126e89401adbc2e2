/** The five hooks, in the order of the paths; the user queue; modules with their references. */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { expect, test } from 'vitest'
import { symbol } from '../../../../src/abi/symbol.js'
import { EAGAIN, EBUSY, EEXIST, ENOENT } from '../../../../src/lib/errno.js'
import { kfree, kmalloc } from '../../../../src/mm/kmalloc.js'
import {
  NF_ACCEPT,
  NF_DROP,
  NF_HOOK_OPS,
  NF_QUEUE,
  NF_REPEAT,
  nf_register_hook,
  nf_register_queue_handler,
  nf_unregister_hook,
} from '../../../../src/net/core/netfilter.js'
import { ipq_read, ipq_set_maxlen, ipq_set_verdict } from '../../../../src/net/ipv4/netfilter/ip_queue.js'
import {
  define_module,
  delete_module,
  init_module,
  module_put,
  modules_text,
  request_module,
  symbol_get,
  symbol_put,
  try_module_get,
} from '../../../../src/sched/module.js'
import { kernel_thread } from '../../../../src/sched/sched.js'
import { counting, icmpFrame, udpFrame } from '../../../helpers/frames.js'
import { conserved, Script } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'

const seen: string[] = []
const state = { verdict: NF_ACCEPT }
const watch = symbol('test_watch', (hook: number, _skb: unknown, indev: unknown, outdev: unknown) => {
  seen.push(`${hook}${indev === null ? '' : 'i'}${outdev === null ? '' : 'o'}`)
  return NF_ACCEPT
})
const judge = symbol('test_judge', (_hook: number) => {
  const { verdict } = state
  if (verdict === NF_REPEAT) state.verdict = NF_ACCEPT
  seen.push('judge')
  return verdict
})
const gone: string[] = []
define_module('test_base', {
  *init() {
    return 0
  },
  *exit() {
    gone.push('test_base')
  },
  exports: { test_watch: watch },
})
define_module('test_user', {
  *init() {
    return 0
  },
  *exit() {
    gone.push('test_user')
  },
  uses: ['test_base'],
})
define_module('test_broken', {
  *init() {
    return -EBUSY
  },
  *exit() {},
  uses: ['test_base'],
})

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

/** Run as a process. */
function run<T>(body: () => Generator<void, T, void>): T {
  let result: { value: T } | null = null
  kernel_thread(
    'test',
    symbol('test_body', function* () {
      result = { value: yield* body() }
      return 0
    }),
    0,
    { cpu: 0 },
  )
  for (let k = 0; k < 50 && result === null; k++) s.pass(1)
  expect(result).not.toBe(null)
  return result!.value
}

const hooks = [0, 1, 2, 3, 4].map(hooknum => {
  const ops = NF_HOOK_OPS.ref(kmalloc(NF_HOOK_OPS.size))
  ops.hook = watch
  ops.hooknum = hooknum
  ops.priority = 0
  return ops
})
const judging = NF_HOOK_OPS.ref(kmalloc(NF_HOOK_OPS.size))
judging.hook = judge
judging.hooknum = 2
judging.priority = -5
const forwarded = udpFrame({ src: '10.0.0.2', dst: '10.0.1.2' }, counting(18))

test('each path meets its hooks, with the devices that it has', () => {
  for (const ops of hooks) nf_register_hook(ops)
  expect(s.send(0, forwarded)[1]).toHaveLength(1)
  expect(seen.splice(0)).toEqual(['0i', '2io', '4o'])
  expect(s.send(0, icmpFrame({ src: '10.0.0.2', dst: '10.0.0.1' }, 8, 0, 1, counting(30)))[0]).toHaveLength(1)
  expect(seen.splice(0)).toEqual(['0i', '1i', '3o', '4o'])
})

test('verdicts: drop, repeat, and a queue that nobody keeps', () => {
  nf_register_hook(judging)
  const account = (verdict: number) =>
    s.account(() => {
      state.verdict = verdict
      s.send(0, forwarded)
    })
  expect(account(NF_DROP).drops).toEqual({ netfilter: 1 })
  expect(seen.splice(0)).toEqual(['0i', 'judge'])
  expect(account(NF_QUEUE).drops).toEqual({ netfilter: 1 })
  seen.splice(0)
  expect(account(NF_REPEAT).forwarded).toBe(1)
  expect(seen.splice(0)).toEqual(['0i', 'judge', 'judge', '2io', '4o'])
})

test('the user queue: packets wait for a verdict, go on behind the hook that queued them, and there is room for so many', () => {
  expect(run(() => init_module('ip_queue'))).toBe(0)
  expect(nf_register_queue_handler(watch as never, 0)).toBe(-EBUSY)
  state.verdict = NF_QUEUE
  ipq_set_maxlen(2)
  const f = s.account(() => {
    s.send(0, forwarded, forwarded, forwarded)
    seen.splice(0)
    const a = run(() => ipq_read())
    const b = run(() => ipq_read())
    expect(b.id).not.toBe(a.id)
    expect(
      run(function* () {
        return ipq_set_verdict(b.id, NF_ACCEPT)
      }),
    ).toBe(0)
    expect(s.out()[1]).toHaveLength(1)
    expect(seen.splice(0)).toEqual(['2io', '4o'])
    expect(ipq_set_verdict(b.id, NF_ACCEPT)).toBe(-ENOENT)
    ipq_set_verdict(a.id, NF_DROP)
  })
  expect(f).toMatchObject({ received: 3, forwarded: 1, drops: { netfilter: 2 } })
})

test('what waits when the hook goes is dropped, and so is what waits when the queue goes', () => {
  const f = s.account(() => {
    s.send(0, forwarded, forwarded)
    const a = run(() => ipq_read())
    run(() => nf_unregister_hook(judging))
    ipq_set_verdict(a.id, NF_ACCEPT)
    expect(run(() => delete_module('ip_queue'))).toBe(0)
  })
  expect(f.drops).toEqual({ netfilter: 2 })
})

test('modules: loaded with what they use, held while used, gone in the other order', () => {
  expect(run(() => init_module('test_user'))).toBe(-ENOENT)
  expect(run(() => init_module('nothing'))).toBe(-ENOENT)
  expect(run(() => request_module('test_user'))).toBe(0)
  expect(modules_text()).toMatch(/^test_base \d+ 1 test_user, Live .*\ntest_user \d+ 0 - Live /)
  expect(run(() => init_module('test_user'))).toBe(-EEXIST)
  expect(run(() => delete_module('test_base'))).toBe(-EAGAIN)
  expect(run(() => init_module('test_broken'))).toBe(-EBUSY)
  expect(symbol_get('test_watch')).toBe(watch)
  expect(run(() => delete_module('test_user'))).toBe(0)
  expect(run(() => delete_module('test_base'))).toBe(-EAGAIN)
  symbol_put('test_watch')
  expect(run(() => delete_module('test_base'))).toBe(0)
  expect(gone).toEqual(['test_user', 'test_base'])
  expect(symbol_get('test_watch')).toBe(0)
})

test('a module whose code runs is not unloaded', () => {
  expect(run(() => init_module('test_base'))).toBe(0)
  const mod = Number(/^test_base .*0x(\w+)/m.exec(modules_text())![1]!.replace(/^/, '0x'))
  expect(try_module_get(mod)).toBe(true)
  expect(run(() => delete_module('test_base'))).toBe(-EAGAIN)
  module_put(mod)
  expect(run(() => delete_module('test_base'))).toBe(0)
  expect(try_module_get(mod)).toBe(false)
})

test('all is accounted for, and nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  for (const ops of hooks) run(() => nf_unregister_hook(ops))
  for (const ops of [...hooks, judging]) kfree(ops.addr)
  expect(s.solo.audit()).toEqual([])
})
