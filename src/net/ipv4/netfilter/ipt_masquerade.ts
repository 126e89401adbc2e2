/**
 * ipt_masquerade.ts - the source becomes the address of the device that the packet goes out by (ipt_MASQUERADE.c): for links whose
 * address changes. When it does, or the link goes down, what went out with the old one is forgotten.
 *
 * Lock charter
 *   masq_index is one word, set before others can find the connection: no lock, where 2.6.11 has masq_lock.
 */
import { DEFINE_STATIC } from '../../../abi/section.js'
import { symbol } from '../../../abi/symbol.js'
import { store } from '../../../arch/atomic.js'
import { RAM } from '../../../arch/ram.js'
import { NOTIFIER, NOTIFY_DONE, type notifier_block } from '../../../irq/notifier.js'
import { define_module } from '../../../sched/module.js'
import { printk } from '../../../sched/printk.js'
import {
  dev_name,
  NETDEV_DOWN,
  register_netdevice_notifier,
  unregister_netdevice_notifier,
} from '../../core/netdevice.js'
import { NF_ACCEPT, NF_DROP } from '../../core/netfilter.js'
import { NETDEV, type net_device, type sk_buff } from '../../core/types.js'
import { IFA, inet_select_addr, register_inetaddr_notifier, unregister_inetaddr_notifier } from '../devinet.js'
import { RT_SCOPE_UNIVERSE } from '../fib_types.js'
import { RTABLE } from '../types.js'
import { CONNTRACK, ip_ct_iterate_cleanup } from './ip_conntrack.js'
import { IP_NAT_RANGE_MAP_IPS, RANGE_FLAGS, RANGE_WORDS } from './ip_nat_proto.js'
import { nat_check, nat_target, SRC_HOOKS } from './ip_nat_rule.js'
import { define_target, ipt_register, ipt_unregister } from './ip_tables.js'

const i32 = RAM.i32
const MASQ_INDEX = CONNTRACK.offset('masq_index')

/** A range without addresses. */
function masquerade(skb: sk_buff, _in: unknown, out: net_device | null, hook: number, info: number): number {
  if (skb.sk !== 0) return NF_ACCEPT // a local program's has the right source already; 2.6.11 leaves it so, too
  const newsrc = inet_select_addr(out!, RTABLE.ref(skb.dst!.addr).rt_gateway, RT_SCOPE_UNIVERSE)
  if (newsrc === 0) {
    printk(4, `MASQUERADE: ${dev_name(out!)} ate my IP address`)
    return NF_DROP
  }
  store(skb.nfct + MASQ_INDEX, out!.ifindex)
  return nat_target(skb, hook, info, newsrc)
}
define_target(
  'MASQUERADE',
  RANGE_WORDS,
  masquerade,
  (table, _e, info, mask) =>
    nat_check(table, info, mask, SRC_HOOKS) && (i32[(info >> 2) + RANGE_FLAGS] & IP_NAT_RANGE_MAP_IPS) === 0,
)

/** What went out by a device that is down, or has lost an address, is over. @context process @locks rtnl is held */
function forget(dev: net_device): number {
  ip_ct_iterate_cleanup(c => c.masq_index === dev.ifindex)
  return NOTIFY_DONE
}
function masq_device_event(_nb: notifier_block, event: number, data: number): number {
  return event === NETDEV_DOWN ? forget(NETDEV.ref(data)) : NOTIFY_DONE
}
function masq_inet_event(_nb: notifier_block, event: number, data: number): number {
  return event === NETDEV_DOWN ? forget(IFA.ref(data).ifa_dev!.dev!) : NOTIFY_DONE
}
const device_event_sym = symbol('masq_device_event', masq_device_event)
const inet_event_sym = symbol('masq_inet_event', masq_inet_event)
const masq_dev_notifier = DEFINE_STATIC('masq_dev_notifier', NOTIFIER)
const masq_inet_notifier = DEFINE_STATIC('masq_inet_notifier', NOTIFIER)

const mod = define_module('ipt_MASQUERADE', {
  *init() {
    ipt_register('target', 'MASQUERADE', mod.addr)
    masq_dev_notifier.call = device_event_sym
    masq_inet_notifier.call = inet_event_sym
    register_netdevice_notifier(masq_dev_notifier)
    register_inetaddr_notifier(masq_inet_notifier)
    return 0
  },
  *exit() {
    ipt_unregister('target', 'MASQUERADE')
    unregister_netdevice_notifier(masq_dev_notifier)
    unregister_inetaddr_notifier(masq_inet_notifier)
  },
  uses: ['iptable_nat'],
})
