/** main.ts - boot order; the only file that names every subsystem. */

import { describe_addr } from '../abi/section.js'
import { symbol, text_hash } from '../abi/symbol.js'
import { cmpxchg, fetch_or, load, store, wake_by_address } from '../arch/atomic.js'
import { VIRTUAL } from '../arch/cost.js'
import { cpu_id, cpu_relax, cpu_reset, cpu_resume, local_irq_enable, oops, panic, set_entry } from '../arch/cpu.js'
import {
  BOOT_HASH,
  BOOTING,
  config,
  KernelPanic,
  num_cpus,
  ONLINE,
  POWER,
  PowerOff,
  publish_panic,
  RUNNING,
} from '../arch/machine.js'
import { turnstile_enter, turnstile_leave } from '../arch/turnstile.js'
import { bus_init } from '../drivers/base/bus.js'
import { console_init } from '../drivers/char/console.js'
import { loopback_init } from '../drivers/net/loopback.js'
import { nic_found } from '../drivers/net/nic_driver.js'
import { eventpoll_init } from '../fs/eventpoll.js'
import { cpu_rejoin, hotplug_init } from '../irq/hotplug.js'
import { irq_init } from '../irq/interrupt.js'
import { softirq_init } from '../irq/softirq.js'
import { tasklets_init } from '../irq/tasklet.js'
import '../irq/itimer.js' // it hooks into the tick and into the end of tasks
import { init_timers, resume_clock } from '../irq/timer.js'
import { init_workqueues } from '../irq/workqueue.js'
import { E2BIG, EEXIST, EINVAL, ELOOP, ENETUNREACH, ENOENT, ENOMEM } from '../lib/errno.js'
import { words_text } from '../lib/iptables.js'
import { mem_init } from '../mm/init.js'
import { net_dev_init, RX_POLLED } from '../net/core/dev.js'
import { dev_mcast_init } from '../net/core/dev_mcast.js'
import { dst_dev_init, dst_init } from '../net/core/dst.js'
import { kpoll_init } from '../net/core/kpoll.js'
import { linkwatch_init } from '../net/core/link_watch.js'
import { dev_get_by_name, dev_open, dev_put, netdev_init, rtnl_lock, rtnl_unlock } from '../net/core/netdevice.js'
import { netfilter_init } from '../net/core/netfilter.js'
import { neigh_add_permanent } from '../net/core/nud.js'
import { sysctl_write } from '../net/core/sysctl.js'
import { net_core_sysctl_init } from '../net/core/sysctl_net_core.js'
import type { net_device } from '../net/core/types.js'
import { inet_init } from '../net/ipv4/af_inet.js'
import { arp_init } from '../net/ipv4/arp.js'
import { arp_ioctl_init } from '../net/ipv4/arp_ioctl.js'
import { devinet_init, inet_insert_ifa, inetdev_init } from '../net/ipv4/devinet.js'
import { ip_fib_init, ip_route_add } from '../net/ipv4/fib_frontend.js'
import { RTN_BLACKHOLE, RTN_PROHIBIT, RTN_THROW, RTN_UNICAST, RTN_UNREACHABLE } from '../net/ipv4/fib_types.js'
import { icmp_init } from '../net/ipv4/icmp.js'
import { inet_initpeers } from '../net/ipv4/inetpeer.js'
import { ip_init } from '../net/ipv4/ip_input.js'
import { ip_sysctl_init } from '../net/ipv4/ip_sysctl.js'
import { ipfrag_init } from '../net/ipv4/ipq.js'
import { ip_conntrack_sysctl_init } from '../net/ipv4/netfilter/ip_conntrack_sysctl.js'
import { ipt_replace } from '../net/ipv4/netfilter/ip_tables_user.js'
import { ip_rt_init, rt_cache_flush_sym } from '../net/ipv4/route.js'
import { rt_sysctl_init } from '../net/ipv4/route_sysctl.js'
import '../net/ipv4/xfrm_modules.js' // they enter themselves into the table of modules
import { rtnl_addr_init } from '../net/ipv4/rtnl_addr.js'
import { rtnl_route_init } from '../net/ipv4/rtnl_route.js'
import { rtnl_rule_init } from '../net/ipv4/rtnl_rule.js'
import { screen_init } from '../net/ipv4/screen.js'
import { xfrm4_init } from '../net/ipv4/xfrm4_policy.js'
import { netlink_init } from '../net/netlink/af_netlink.js'
import { rtnetlink_init } from '../net/netlink/rtnetlink.js'
import { rtnl_link_init } from '../net/netlink/rtnl_link.js'
import { rtnl_neigh_init } from '../net/netlink/rtnl_neigh.js'
import { packet_init } from '../net/packet/af_packet.js'
import { unix_init } from '../net/unix/af_unix.js'
import { rcu_init } from '../rcu/rcupdate.js'
import { fasync_init } from '../sched/fasync.js'
import { kthread_init } from '../sched/kthread.js'
import { modules_init } from '../sched/module.js'
import { printk_init } from '../sched/printk.js'
import { cpu_loop, forget_tasks, kernel_thread, sched_init } from '../sched/sched.js'
import { signals_init } from '../sched/signal.js'
import { exec, program_names } from '../syscall/exec.js'
import '../user/programs.js' // they enter themselves into the table of programs
import { screend_sym } from '../user/screend.js'
import { spin_sym } from '../user/spin.js'
import { doorbell_init } from './doorbell.js'
import './wait_graph.js' // it hooks into the turnstile
import type { NeighbourSetup, PortSetup, ProcessSetup, RouterSetup, RouteSetup, SysctlSetup } from './setup.js'

export { proc_files, proc_read } from '../fs/proc.js'
export { ipt_get_entries } from '../net/ipv4/netfilter/ip_tables_user.js'
export { tasks_not_at_rest } from '../sched/sched.js'
export { leak_audit, post_mortem } from './audit.js'
export { system_map } from './system_map.js'

/** What the init process of this thread is to set up; a boot argument, not kernel state. */
const boot_args: { setup: RouterSetup; programs: Program[]; carved: boolean } = {
  setup: { ports: [], routes: [], neighbours: [] },
  programs: [],
  carved: false, // this thread has its caches and tables
}

/** A module that was loaded beside the kernel on every CPU; main() is called by the init process on CPU 0. */
export interface Program {
  main(): void
}

/** add_program - before boot, in the same order on every CPU: it may bring symbols, structs and variables of its own. */
export function add_program(program: Program): void {
  boot_args.programs.push(program)
}

const TYPES = {
  unicast: RTN_UNICAST,
  unreachable: RTN_UNREACHABLE,
  blackhole: RTN_BLACKHOLE,
  prohibit: RTN_PROHIBIT,
  throw: RTN_THROW,
}

const WORDS: Record<number, string | undefined> = {
  [-EEXIST]: 'is there already',
  [-ENETUNREACH]: 'has its gateway on no network of the device',
  [-ENOMEM]: 'has no room in memory',
}

/** The part of the setup that is being done: its field, and a key or an index. */
const doing = { part: '' }

/**
 * What was asked for cannot be had. No code is wrong, so the host gets a line (`init: ...`) instead of a dump, and another one with
 * the part of the setup that said so.
 */
function give_up(what: string): never {
  publish_panic(`init: ${what}${doing.part === '' ? '' : `\n${doing.part}`}`)
  throw new KernelPanic(what)
}

function must(err: number, what: string): void {
  if (err !== 0) give_up(`${what} ${WORDS[err] ?? `gets error ${-err}`}`)
}

function dotted(addr: number): string {
  return [24, 16, 8, 0].map(shift => (addr >>> shift) & 255).join('.')
}

function add_port(nic: number, port: PortSetup): void {
  doing.part = `ports ${nic}`
  const dev = nic_found(nic, {
    name: port.name,
    mac_hi: port.mac.hi,
    mac_lo: port.mac.lo,
    mtu: port.mtu,
    nqueues: port.queues,
    promisc: port.promisc,
  })
  if (dev === null || inetdev_init(dev) === null)
    give_up(`interface ${port.name} is there already, or has no room in memory`)
  must(dev_open(dev), `interface ${port.name}`)
  for (const a of port.addresses)
    must(inet_insert_ifa(dev, a.local, a.prefixlen), `address ${dotted(a.local)}/${a.prefixlen} of ${port.name}`)
}

function with_dev<T>(name: string, f: (dev: net_device) => T): T {
  const dev = dev_get_by_name(name)
  if (dev === null) give_up(`there is no interface ${name}`)
  const result = f(dev)
  dev_put(dev)
  return result
}

function add_route(r: RouteSetup): void {
  const nexthops = r.nexthops.map(hop => ({ gw: hop.gw, weight: hop.weight, dev: with_dev(hop.dev, dev => dev) }))
  must(
    ip_route_add({ dst: r.dst, prefixlen: r.prefixlen, type: TYPES[r.type], priority: r.metric, nexthops }),
    `route ${dotted(r.dst)}/${r.prefixlen} metric ${r.metric}`,
  )
}

function add_neighbour(n: NeighbourSetup): void {
  must(
    with_dev(n.dev, dev => neigh_add_permanent(n.address, dev, n.mac.hi, (n.mac.lo << 16) >> 16)),
    `neighbour ${dotted(n.address)} of ${n.dev}`,
  )
}

/** add_loopback - lo comes first, as inet_select_addr expects. */
function add_loopback(): void {
  const dev = loopback_init()
  if (dev === null || inetdev_init(dev) === null) give_up('interface lo has no room in memory')
  must(dev_open(dev), 'interface lo')
  must(inet_insert_ifa(dev, 0x7f000001, 8), 'address 127.0.0.1/8 of lo')
}

/** Those of one device come when it is there. */
function set_sysctls(sysctls: SysctlSetup, of_device: boolean): void {
  for (const [name, value] of Object.entries(sysctls)) {
    if (/^net\.ipv4\.(?:conf|neigh)\.(?!all\.|default\.)/.test(name) !== of_device) continue
    doing.part = `sysctl ${name}`
    const err = sysctl_write(name, value)
    if (err === -ENOENT) give_up(`there is no sysctl ${name}`)
    if (err !== 0) give_up(`sysctl ${name} cannot be ${String(value)}${err === -EINVAL ? '' : ` (error ${-err})`}`)
  }
}

/** configure_network - devices, addresses, neighbours, routes. @context process, boot @locks rtnl is held */
export function configure_network(setup: RouterSetup): void {
  const sysctls = setup.sysctl ?? {}
  set_sysctls(sysctls, false)
  if (config('loopback') !== 0) add_loopback()
  setup.ports.forEach((port, nic) => {
    add_port(nic, port)
  })
  set_sysctls(sysctls, true)
  setup.neighbours.forEach((n, k) => {
    doing.part = `neighbours ${k}`
    add_neighbour(n)
  })
  setup.routes.forEach((r, k) => {
    doing.part = `routes ${k}`
    add_route(r)
  })
}

/** start_process - @context process, boot */
export function start_process(setup: ProcessSetup): void {
  const err = exec(setup.argv, setup)
  if (err >= 0) return
  const name = setup.argv[0] ?? ''
  if (err === -ENOENT) give_up(`there is no program '${name}', only ${program_names().join(', ')}`)
  if (err === -E2BIG) give_up(`program ${name} has too many arguments`)
  if (err === -EINVAL) give_up(`program ${name} has a CPU or a delay that cannot be`)
  give_up(`program ${name} has no room in memory`)
}

/** load_table - rules that the host has written. @context process */
export function* load_table(blob: Int32Array): Generator<void, void, void> {
  const err = yield* ipt_replace(blob)
  const words: Record<number, string> = {
    [-ELOOP]: 'has a loop of chains',
    [-EINVAL]: 'has a rule that cannot be there',
  }
  if (err !== 0) give_up(`table ${words_text(blob.subarray(0, 8))} ${words[err] ?? WORDS[err] ?? `gets error ${-err}`}`)
}

/** init - the first process: brings the network up, then the machine counts as running. @context process */
function* init(): Generator<void, number, void> {
  yield* rtnl_lock()
  configure_network(boot_args.setup)
  rtnl_unlock()
  for (const [k, blob] of (boot_args.setup.iptables ?? []).entries()) {
    doing.part = `iptables ${k}`
    yield* load_table(blob)
  }
  doing.part = ''
  if (config('user_spin') !== 0)
    for (let cpu = 0; cpu < num_cpus(); cpu++) kernel_thread('spin', spin_sym, 0, { cpu, user: true })
  for (const program of boot_args.programs) program.main()
  for (const [k, setup] of (boot_args.setup.processes ?? []).entries()) {
    doing.part = `processes ${k}`
    start_process(setup)
  }
  doing.part = ''
  cmpxchg(POWER, BOOTING, RUNNING)
  wake_by_address(POWER, 1)
  return 0
}
const init_sym = symbol('init', init)

/** init_subsystems - all that CPU 0 lays out for everybody; interrupts are on afterwards. @context boot, CPU 0 */
export function init_subsystems(ncpus: number): void {
  mem_init()
  boot_args.carved = true
  sched_init(ncpus)
  kthread_init()
  signals_init()
  fasync_init()
  eventpoll_init()
  printk_init()
  modules_init()
  irq_init()
  tasklets_init()
  init_timers(ncpus)
  rcu_init(ncpus)
  softirq_init(ncpus)
  init_workqueues()
  hotplug_init()
  console_init()
  local_irq_enable()
  net_core_sysctl_init()
  netdev_init()
  netfilter_init()
  ip_conntrack_sysctl_init()
  netlink_init()
  unix_init()
  rtnetlink_init()
  dev_mcast_init()
  rtnl_link_init()
  rtnl_neigh_init()
  net_dev_init(ncpus)
  linkwatch_init()
  arp_init(config('seed'))
  arp_ioctl_init()
  bus_init()
  dst_init()
  dst_dev_init()
  ip_sysctl_init()
  rt_sysctl_init()
  inet_initpeers()
  ip_rt_init()
  xfrm4_init(config('seed'))
  devinet_init(rt_cache_flush_sym)
  ip_fib_init(rt_cache_flush_sym)
  rtnl_addr_init()
  rtnl_route_init()
  rtnl_rule_init()
  ip_init()
  ipfrag_init()
  icmp_init(ncpus)
  inet_init()
  packet_init()
  fetch_or(ONLINE, 1)
}

/** start_kernel - CPU 0. Never returns. @context boot */
function start_kernel(): never {
  const ncpus = num_cpus()
  init_subsystems(ncpus)
  store(BOOT_HASH, text_hash())
  const all = ncpus === 32 ? -1 : (1 << ncpus) - 1
  while (load(ONLINE) !== all) cpu_relax() // a CPU that does not come up is seen by the host
  doorbell_init()
  if (config('rx_arch') === RX_POLLED) kpoll_init()
  if (config('screend') !== 0) {
    screen_init()
    kernel_thread('screend', screend_sym, 0, { cpu: 0, user: true })
  }
  kernel_thread('init', init_sym, 0, { cpu: 0 })
  return cpu_loop()
}

/** start_secondary - every other CPU, once CPU 0 has laid everything out. Never returns. @context boot */
function start_secondary(): never {
  while (load(BOOT_HASH) === 0) cpu_relax()
  if (load(BOOT_HASH) !== text_hash()) panic('BUG: CPUs with different kernels')
  carve()
  fetch_or(ONLINE, 1 << cpu_id)
  local_irq_enable()
  return cpu_loop()
}

/** carve - give this thread its caches and tables, by the configuration in RAM; CPU 0 also lays them out anew. */
export function carve(): void {
  mem_init()
  irq_init()
  boot_args.carved = true
}

/** carved - can this thread go on with the RAM of a machine of this configuration? */
export function carved(): boolean {
  return boot_args.carved
}

/** run_cpu - from power-on to power-off. @returns how it ended */
export function run_cpu(setup: RouterSetup): CpuEnd {
  boot_args.setup = setup
  return until_power_off(() => {
    cpu_reset()
    if (cpu_id === 0) start_kernel()
    start_secondary()
  })
}

/** resume_cpu - from where a halted machine stood, by its RAM, to power-off. @returns how it ended */
export function resume_cpu(): CpuEnd {
  return until_power_off(() => {
    cpu_resume()
    if (cpu_id === 0) resume_clock()
    cpu_rejoin()
    cpu_loop()
  })
}

/** describe - the variable or object that an address belongs to, for dumps. */
export function describe(addr: number): string {
  return describe_addr(addr) ?? `0x${addr.toString(16)}`
}

export type CpuEnd = 'power off' | 'panic' | 'oops'

function until_power_off(run: () => never): CpuEnd {
  set_entry({ describe })
  try {
    if (VIRTUAL) turnstile_enter()
    return run()
  } catch (error) {
    forget_tasks()
    if (error instanceof PowerOff) return 'power off'
    if (error instanceof KernelPanic) return 'panic'
    oops(error)
    return 'oops'
  } finally {
    if (VIRTUAL) turnstile_leave()
  }
}
