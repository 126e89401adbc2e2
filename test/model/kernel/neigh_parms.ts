/**
 * A device loses its IPv4 side and gets another, again and again, while a thread on the other CPU makes entries for neighbours on it
 * and goes by their parameters after the device has lost them. They stay as long as an entry has them. The broken twin lets the
 * entry go and keeps its parameters.
 */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { neigh_create, neigh_ifdown, neigh_parms_of, neigh_release } from '../../../src/net/core/neighbour.js'
import { dev_get_by_name, dev_put, rtnl_lock, rtnl_unlock } from '../../../src/net/core/netdevice.js'
import { inetdev_destroy, inetdev_init } from '../../../src/net/ipv4/devinet.js'
import { synchronize_kernel } from '../../../src/rcu/rcupdate.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { clock_for_the_idle, cpu, eth_ports, ip, nothing_leaked, power_on, secondary } from './machine.js'

export interface NeighParmsArgs {
  rounds: number
  twin?: boolean
}

class result extends Struct {
  declare ended: number
  declare made: number
  declare refused: number
  declare wrong: number
}
const RESULT: Layout<result> = layout('neigh_parms_result', result, {
  ended: word,
  made: word,
  refused: word, // the device had no IPv4 side just then
  wrong: word,
})
const r = DEFINE_STATIC('neigh_parms_result', RESULT)
const ENDED = r.addr + RESULT.offset('ended')
const WRONG = r.addr + RESULT.offset('wrong')

function end(): void {
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
}
const operator_sym = symbol('test_neigh_operator', function* (rounds: number): Generator<void, number, void> {
  const eth0 = dev_get_by_name('eth0')!
  for (let k = 0; k < rounds; k++) {
    yield* rtnl_lock()
    inetdev_destroy(eth0)
    neigh_ifdown(eth0)
    yield* synchronize_kernel() // their last user but entries is gone
    if (inetdev_init(eth0) === null) store(WRONG, 1)
    rtnl_unlock()
    yield* synchronize_kernel()
  }
  dev_put(eth0)
  end()
  return 0
})
const user_sym = symbol('test_neigh_user', function* (arg: number): Generator<void, number, void> {
  const eth0 = dev_get_by_name('eth0')!
  for (let k = 0; k < arg >> 1; k++) {
    const n = neigh_create(ip(10, 0, 0, 9), eth0)
    if (n === null) r.refused++
    else {
      const parms = neigh_parms_of(n)
      if ((arg & 1) !== 0) neigh_release(n)
      yield* synchronize_kernel()
      if (parms.retrans_time !== 1000) store(WRONG, 2)
      if ((arg & 1) === 0) neigh_release(n)
      r.made++
    }
    yield* synchronize_kernel()
  }
  dev_put(eth0)
  end()
  return 0
})

export function setup(args: NeighParmsArgs): NeighParmsArgs {
  power_on(2, { rx_arch: 2, nports: 1, nqueues: 1, slab_poison: 1 })
  configure_network({ ports: eth_ports(1, 1), routes: [], neighbours: [] })
  kernel_thread('ip', operator_sym, args.rounds, { cpu: 1 })
  kernel_thread('user', user_sym, args.rounds * 2 + (args.twin === true ? 1 : 0), { cpu: 0 })
  return args
}
export const prepare = secondary

const clock = (): void => clock_for_the_idle(() => {})

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${r.made > 0 ? 'made' : 'none'}, ${r.refused > 0 ? 'refused' : 'none refused'}`

export function invariant(): void {
  if (r.wrong !== 0 || r.ended !== 2) throw new Error(`${r.ended} of 2 ended, wrong ${r.wrong}`)
  nothing_leaked()
}
