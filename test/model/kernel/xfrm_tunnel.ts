/**
 * Two states of IPComp between the same addresses share a tunnel state. One goes while the other comes, or both go at once:
 * who is there has one that packets find, and when nobody is there, there is none. The twin takes it as 2.6.11 does, without the
 * lock under which uses are counted.
 */
import { fetch_add } from '../../../src/arch/atomic.js'
import { cpu_reset, local_irq_enable } from '../../../src/arch/cpu.js'
import { describe as describeAddress } from '../../../src/init/main.js'
import { STATE, XFRM_STATE_VALID, type xfrm_state } from '../../../src/net/xfrm/types.js'
import { xfrm_init_state } from '../../../src/net/xfrm/xfrm_km.js'
import {
  xfrm_state_add,
  xfrm_state_all,
  xfrm_state_alloc,
  xfrm_state_delete,
  xfrm_state_flush,
  xfrm_state_lookup,
  xfrm_state_put,
} from '../../../src/net/xfrm/xfrm_state.js'
import { xfrm_gc_now } from '../../../src/net/xfrm/xfrm_tunnel.js'
import { request_module } from '../../../src/sched/module.js'
import { nothing_leaked, power_on, secondary } from './machine.js'

export interface XfrmTunnelArgs {
  /** What CPU 1 does while CPU 0 deletes the first state. */
  second: 'comes' | 'goes'
  twin?: boolean
}
const [HERE, THERE, COMP, IPIP] = [2, 1, 108, 4]
const [FIRST, SECOND] = [0x100, 0x200]

function fresh(spi: number): xfrm_state {
  const x = xfrm_state_alloc()!
  return Object.assign(x, {
    daddr: THERE,
    saddr: HERE,
    spi,
    proto: COMP,
    mode: 1,
    calg: 2,
    flags: spi === FIRST ? 0 : 1,
  })
}
function add(x: xfrm_state): void {
  if (xfrm_init_state(x).next().value !== 0 || xfrm_state_add(x) !== 0) throw new Error('no state')
  xfrm_state_put(x)
}
function remove(spi: number): void {
  const x = xfrm_state_lookup(THERE, spi, COMP)!
  xfrm_state_delete(x)
  xfrm_state_put(x)
  xfrm_gc_now()
}
/** ipcomp_tunnel_attach of 2.6.11, where there is one: found under the lock, counted behind it. */
function add_as_2_6_11(x: xfrm_state): void {
  const t = xfrm_state_lookup(THERE, HERE, IPIP)
  if (t === null) {
    add(x)
    return
  }
  x.tunnel = t.addr
  fetch_add(t.addr + STATE.offset('tunnel_users'), 1)
  if (xfrm_state_add(x) !== 0) throw new Error('no state')
  xfrm_state_put(x)
}

export function setup(args: XfrmTunnelArgs): XfrmTunnelArgs {
  power_on(2, { slab_poison: 1 })
  for (const name of ['ipcomp', 'xfrm4_tunnel'])
    if (request_module(name).next().value !== 0) throw new Error(`no ${name}`)
  add(fresh(FIRST))
  if (args.second === 'goes') add(fresh(SECOND))
  return args
}
export const prepare = secondary

export const actors = {
  'CPU 0'(): void {
    cpu_reset()
    local_irq_enable()
    remove(FIRST)
  },
  'CPU 1'({ second, twin }: XfrmTunnelArgs): void {
    cpu_reset()
    local_irq_enable()
    if (second === 'goes') remove(SECOND)
    else if (twin === true) add_as_2_6_11(fresh(SECOND))
    else add(fresh(SECOND))
  },
}
export const describe = describeAddress

const seen = { as: '' }
export const outcome = (): string => seen.as

export function invariant({ second }: XfrmTunnelArgs): void {
  const t = xfrm_state_lookup(THERE, HERE, IPIP)
  seen.as = t === null ? 'none' : t.flags === 0 ? 'the old one' : 'a new one'
  const x = xfrm_state_lookup(THERE, SECOND, COMP)
  if ((x !== null) !== (second === 'comes')) throw new Error('where is the second state')
  if ((x?.tunnel ?? 0) !== (t?.addr ?? 0)) throw new Error('its tunnel state is not found')
  if (t !== null && (t.state !== XFRM_STATE_VALID || t.tunnel_users !== 2)) throw new Error(`${t.tunnel_users} uses`)
  for (const one of [t, x]) if (one !== null) xfrm_state_put(one)
  xfrm_state_flush(0)
  xfrm_gc_now()
  for (const left of xfrm_state_all()) throw new Error(`protocol ${left.proto} is left`)
  nothing_leaked()
}
