/**
 * audit.ts - the leak audit: on a machine that was halted at rest, give back all that is queued, cached or configured, and
 * see what is still out. Runs on CPU 0 with every other CPU off.
 */

import { store } from '../arch/atomic.js'
import { BUG_ON, cpu_area, cpu_id, cpu_reset, local_irq_enable, set_softirq_pending } from '../arch/cpu.js'
import { num_cpus } from '../arch/machine.js'
import { NIC_STATUS, nic_page, STATUS_GONE } from '../arch/nic_regs.js'
import { eventpolls_halt } from '../fs/eventpoll.js'
import { files_post_mortem } from '../fs/file.js'
import { PIPE, pipe_put, pipes_halt } from '../fs/pipe.js'
import { sleeps_end, timers_pending } from '../irq/timer.js'
import { MAX_NICS } from '../lib/limits.js'
import { freed_object, slabinfo } from '../mm/slab.js'
import { dev_mc_discard } from '../net/core/dev_mcast.js'
import { dst_gc_now } from '../net/core/dst.js'
import { drop_reason } from '../net/core/fate.js'
import { neigh_ifdown } from '../net/core/neighbour.js'
import { dev_close, first_netdev } from '../net/core/netdevice.js'
import { pneigh_ifdown } from '../net/core/pneigh.js'
import { skb_queue_purge } from '../net/core/skb_queue.js'
import { socks_disown } from '../net/core/sock.js'
import { softnet_datas } from '../net/core/softnet_data.js'
import { softnet_drain_halted } from '../net/core/softnet_dead.js'
import { inetdev_destroy } from '../net/ipv4/devinet.js'
import { ip_fib_exit } from '../net/ipv4/fib_frontend.js'
import { inet_peers_exit } from '../net/ipv4/inetpeer.js'
import { ipfrag_exit } from '../net/ipv4/ipq.js'
import { ip_conntrack_flush } from '../net/ipv4/netfilter/ip_conntrack.js'
import { ipq_exit_halted, ipq_flush } from '../net/ipv4/netfilter/ip_queue.js'
import { ipt_exit_halted } from '../net/ipv4/netfilter/ip_tables_user.js'
import { ulog_exit_halted } from '../net/ipv4/netfilter/ipt_ulog.js'
import { rt_cache_flush } from '../net/ipv4/route.js'
import { screen_drain_halted } from '../net/ipv4/screen.js'
import { rtnetlink_exit } from '../net/netlink/rtnetlink.js'
import { unix_files_in_flight, unix_gc } from '../net/unix/garbage.js'
import { unix_exit } from '../net/unix/unix_table.js'
import { xfrm_policy_flush } from '../net/xfrm/xfrm_policy.js'
import { xfrm_state_flush } from '../net/xfrm/xfrm_state.js'
import { xfrm_gc_now } from '../net/xfrm/xfrm_tunnel.js'
import { xfrm_user_exit_halted } from '../net/xfrm/xfrm_user.js'
import { rcu_drain_halted } from '../rcu/rcupdate.js'
import { exit_mm } from '../sched/mm.js'
import { all_tasks } from '../sched/sched.js'
import { exit_sighand } from '../sched/signal.js'
import { waits_of_ended_tasks } from '../sched/wait.js'

export interface LeakReport {
  name: string
  used: number
  total: number
}

/** Caches that must be empty in the end; the others hold what lives as long as the machine (tasks, devices, queues). */
const AUDITED = new RegExp(
  `^(${[
    'skbuff_head_cache',
    'skb_data_.*',
    'packet_page',
    'arp_cache',
    'neigh_ha',
    'pneigh_entry',
    'ip_dst_cache',
    'ip_fib_.*',
    'fib_rule',
    'fn_zone',
    'inet_peer',
    'ipq',
    'in_device',
    'in_ifaddr',
    'ip_ra_chain',
    'ip_mc_list',
    'ip_mc_socklist',
    'ip_conntrack',
    'ipt_table_info',
    'ipt_recent.*',
    'ipt_hashlimit.*',
    'nf_info',
    'ipq_queue_entry',
    'sock',
    'socket',
    'packet_mclist',
    'unix_name',
    'pipe_inode',
    'pipe_page',
    'eventpoll',
    'eventpoll_epi',
    'eventpoll_pwq',
    'fasync_cache',
    'filp',
    'files_struct',
    'mm_struct',
    'user_memory',
    'kernel_stack',
    'sighand_struct',
    'irqaction',
    'timer_box',
    'rcu_synchronize',
    'torture_.*',
    'size-.*',
  ].join('|')})$`,
)

/** post_mortem - make this CPU able to run kernel functions for the host once more. @context a halted machine */
export function post_mortem(): void {
  cpu_reset()
  set_softirq_pending(0) // what is left to do is freed, not done
  store(cpu_area(cpu_id), 0) // the halt has been obeyed
  local_irq_enable()
}

/** leak_audit - what is out and should not be; empty when all is well. @context a halted machine */
export function leak_audit(): LeakReport[] {
  const ncpus = num_cpus()
  const shutdown = drop_reason('shutdown')
  post_mortem()
  for (let cpu = 0; cpu < ncpus; cpu++) {
    const sd = softnet_datas.cpu(cpu)
    skb_queue_purge(sd.input_pkt_queue, shutdown)
    skb_queue_purge(sd.ipintrq, shutdown)
    softnet_drain_halted(cpu)
  }
  screen_drain_halted()
  ipq_flush()
  programs_end()
  modules_post_mortem()
  ipq_exit_halted()
  rtnetlink_exit()
  unix_exit(node => pipe_put(PIPE.ref(node)))
  ipfrag_exit()
  for (let nic = 0; nic < MAX_NICS; nic++) store(nic_page(nic) + NIC_STATUS, STATUS_GONE) // the board is off
  for (let dev = first_netdev(); dev !== null; dev = dev.next) {
    BUG_ON(dev_close(dev).next().done !== true, 'audit sleeps')
    neigh_ifdown(dev)
    inetdev_destroy(dev)
    dev_mc_discard(dev)
  }
  pneigh_ifdown(null)
  for (let cpu = 0; cpu < ncpus; cpu++) softnet_drain_halted(cpu)
  ip_fib_exit()
  rt_cache_flush()
  rcu_drain_halted(ncpus)
  dst_gc_now()
  xfrm_gc_now()
  rcu_drain_halted(ncpus)
  inet_peers_exit()
  return leftovers(ncpus)
}

/** The programs that the halt found running never go on: what they have open is closed, and their memory is free. */
function programs_end(): void {
  socks_disown()
  pipes_halt()
  eventpolls_halt()
  BUG_ON(files_post_mortem(unix_files_in_flight()).next().done !== true, 'audit sleeps')
  BUG_ON(unix_gc().next().done !== true, 'audit sleeps')
  for (const p of all_tasks()) {
    exit_mm(p)
    exit_sighand(p)
  }
  sleeps_end()
}

/** Rules and what they hold go with their modules, the last one that was loaded first. */
function modules_post_mortem(): void {
  ipt_exit_halted()
  ulog_exit_halted()
  ip_conntrack_flush()
  xfrm_user_exit_halted()
  xfrm_policy_flush()
  xfrm_state_flush(0)
}

/** leftovers - what is out of the caches that must be empty in the end, waits of ended tasks, and timers that nobody owns. */
export function leftovers(ncpus: number): LeakReport[] {
  return [
    ...slabinfo()
      .filter(c => AUDITED.test(c.name) && c.used > 0)
      .map(({ name, used, total }) => ({ name, used, total })),
    ...stray_waits(),
    ...stray_timers(ncpus),
  ]
}

/** A task may wait when the machine is halted; one that has ended waits for nothing. */
function stray_waits(): LeakReport[] {
  const [used, total] = waits_of_ended_tasks()
  return used > 0 ? [{ name: 'wait_queue_t of an ended task', used, total }] : []
}

/** Timers that are still on a wheel although the object that they lie in was freed. */
function stray_timers(ncpus: number): LeakReport[] {
  const strays: Record<string, number> = {}
  let total = 0
  for (let cpu = 0; cpu < ncpus; cpu++) {
    for (const addr of timers_pending(cpu)) {
      total++
      const cache = freed_object(addr)
      if (cache !== null) strays[cache] = (strays[cache] ?? 0) + 1
    }
  }
  return Object.entries(strays).map(([cache, used]) => ({ name: `pending timer in freed ${cache}`, used, total }))
}
