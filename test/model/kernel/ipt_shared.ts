/**
 * Packets come by matches that remember and a target that gathers, on two CPUs at once: each is counted once, whoever was first. In the broken twin each CPU
 * has a lock of its own, which is none.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_PER_CPU, DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, store } from '../../../src/arch/atomic.js'
import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { JIFFIES } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { proc_read } from '../../../src/fs/proc.js'
import { describe as describeAddress } from '../../../src/init/main.js'
import { jiffies, resume_clock } from '../../../src/irq/timer.js'
import { parseIptables } from '../../../src/lab/iptables/parse.js'
import { table_blob } from '../../../src/lib/iptables.js'
import { NF_IP_PRE_ROUTING, nf_hook_slow } from '../../../src/net/core/netfilter.js'
import { alloc_skb, consume_skb, skb_put } from '../../../src/net/core/skbuff.js'
import type { sk_buff } from '../../../src/net/core/types.js'
import { ipt_replace } from '../../../src/net/ipv4/netfilter/ip_tables_user.js'
import { hashlimit } from '../../../src/net/ipv4/netfilter/ipt_hashlimit.js'
import { recent } from '../../../src/net/ipv4/netfilter/ipt_recent.js'
import { ulog, ulog_waiting } from '../../../src/net/ipv4/netfilter/ipt_ulog.js'
import { local_bh_disable, local_bh_enable } from '../../../src/sync/bh.js'
import { SPINLOCK, spin_lock_init } from '../../../src/sync/spinlock.js'
import { udpFrame } from '../../helpers/frames.js'
import { clock_chip, nothing_leaked, power_on, secondary } from './machine.js'

export interface SharedArgs {
  /** Which match or target, or: buckets are forgotten while packets ask for them. */
  what: 'recent' | 'hashlimit' | 'expire' | 'ulog'
  /** Packets of each CPU: of one host on both, and then of one of the CPU's own. */
  packets: number
  ticks: number
  twin?: boolean
}

const LIMIT = '-m hashlimit --hashlimit 1/min --hashlimit-burst 2 --hashlimit-mode srcip --hashlimit-name x'
const RULES: Record<SharedArgs['what'], string> = {
  recent: `:seen - [0:0]
-A PREROUTING -m recent --set --name x -j seen
-A seen -m recent --rcheck --hitcount 3 --name x -j ACCEPT`,
  hashlimit: `-A PREROUTING ${LIMIT} -j ACCEPT`,
  ulog: '-A PREROUTING -j ULOG --ulog-qthreshold 2\n-A PREROUTING -j ACCEPT',
  expire: `-A PREROUTING ${LIMIT} --hashlimit-htable-gcinterval 1 --hashlimit-htable-expire 1 -j ACCEPT`,
}

class result extends Struct {
  declare passed: number
}
const RESULT: Layout<result> = layout('shared_result', result, { passed: word })
const PASSED = DEFINE_STATIC('shared_result', RESULT).addr

const arrived_sym = symbol('test_shared_arrived', (skb: sk_buff): number => {
  fetch_add(PASSED, 1)
  consume_skb(skb)
  return 1
})

function send(host: number): void {
  const frame = udpFrame({ src: `10.0.0.${host}`, dst: '10.0.1.2' })
  const size = frame[16]! * 256 + frame[17]!
  const skb = alloc_skb(size)!
  skb.nh = skb_put(skb, size)
  RAM.u8.set(frame.subarray(14, 14 + size), skb.nh)
  local_bh_disable()
  nf_hook_slow(NF_IP_PRE_ROUTING, skb, null, null, arrived_sym, -0x80000000)
  local_bh_enable()
}

export function setup(args: SharedArgs): SharedArgs {
  power_on(2, { slab_poison: 1 })
  const text = `*mangle\n:PREROUTING DROP [0:0]\n${RULES[args.what]}\nCOMMIT\n`
  const loading = ipt_replace(table_blob(parseIptables(text, 'rules')[0]!)).next()
  if (loading.done !== true || loading.value !== 0) throw new Error(`the rules are refused: ${loading.value}`)
  local_irq_enable()
  return args
}

const own_lock = DEFINE_PER_CPU('test_shared_lock', SPINLOCK)
export function prepare(args: SharedArgs): void {
  secondary()
  if (args.twin !== true) return
  spin_lock_init(own_lock.mine)
  const { addr, $w } = own_lock.mine
  for (const { lock } of [recent, hashlimit, ulog]) Object.assign(lock, { addr, $w })
}

/** Two milliseconds are over, which the next tick finds out. CPU 0 alone reads when the clock began. */
function time_passes(): void {
  store(JIFFIES, jiffies() + 2)
  resume_clock()
}
function cpu(host: number, args: SharedArgs): void {
  cpu_reset()
  local_irq_enable()
  for (let k = 0; k < args.packets; k++) {
    send(2)
    if (args.what === 'expire' && host === 3) time_passes()
  }
  send(host)
}
export const actors = {
  'CPU 0': (args: SharedArgs): void => cpu(3, args),
  'CPU 1': (args: SharedArgs): void => cpu(4, args),
  clock: (args: SharedArgs): void => clock_chip(args.ticks),
}
export const describe = describeAddress

const seen = { as: '' }
export const outcome = (): string => seen.as

/** By host: how many packets are remembered of it. */
function stamps(): Record<string, number> {
  const text = proc_read('/proc/net/ipt_recent/x')!
  return Object.fromEntries(
    [...text.matchAll(/src=10\.0\.0\.(\d+) .*last_pkts: (.*)/g)].map(m => [m[1], m[2]!.split(',').length]),
  )
}

export function invariant({ what, packets }: SharedArgs): void {
  const passed = RAM.i32[PASSED >> 2]!
  if (what === 'recent') {
    const counted = JSON.stringify(stamps())
    if (JSON.stringify({ 2: 2 * packets, 3: 1, 4: 1 }) !== counted) throw new Error(`seen: ${counted}`)
    // From the third on, or also what was counted before another was looked at.
    if (passed < 2 * packets - 2 || passed > 2 * packets - 1) throw new Error(`${passed} passed`)
  } else if (what === 'ulog') {
    // An even number, two in a message: nothing waits.
    if (passed !== 2 * packets + 2 || ulog_waiting(0) !== 0)
      throw new Error(`${passed} passed, ${ulog_waiting(0)} wait`)
  } else {
    const buckets = proc_read('/proc/net/ipt_hashlimit/x')!.split('\n').length - 1
    // The first of each, and a burst of two.
    if (what === 'hashlimit' && (passed !== 3 + 1 + 1 || buckets !== 3))
      throw new Error(`${passed} passed, ${buckets} buckets`)
    if (passed < 5 || buckets > 3) throw new Error(`${passed} passed, ${buckets} buckets`)
    seen.as = `${buckets} buckets, ${passed} passed`
  }
  nothing_leaked()
}
