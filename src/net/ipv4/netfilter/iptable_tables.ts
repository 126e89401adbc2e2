/** iptable_tables.ts - the tables filter and mangle, each a module: a hook in front of ipt_do_table at each of its points. */
import { embed, type Layout, layout, Struct } from '../../../abi/layout.js'
import { DEFINE_STATIC } from '../../../abi/section.js'
import { symbol } from '../../../abi/symbol.js'
import { TABLE_HOOKS } from '../../../lib/iptables.js'
import { synchronize_kernel } from '../../../rcu/rcupdate.js'
import { define_module } from '../../../sched/module.js'
import {
  NF_ACCEPT,
  NF_DROP,
  NF_HOOK_OPS,
  NF_IP_LOCAL_OUT,
  NF_IP_PRI_FILTER,
  NF_IP_PRI_MANGLE,
  NF_QUEUE,
  NF_STOLEN,
  type nf_hook_ops,
  type nf_hookfn,
  nf_register_hook,
  nf_unregister_hook,
} from '../../core/netfilter.js'
import type { net_device, sk_buff } from '../../core/types.js'
import { ip_daddr, ip_hdrlen, ip_saddr, ip_tos } from '../../wire/ipv4.js'
import { ipt_do_table } from './ip_tables.js'
import { define_table, ipt_register_table, ipt_unregister_table } from './ip_tables_user.js'
import { ip_route_me_harder } from './route_me_harder.js'

class table_hooks extends Struct {
  declare h0: nf_hook_ops
  declare h1: nf_hook_ops
  declare h2: nf_hook_ops
  declare h3: nf_hook_ops
  declare h4: nf_hook_ops
}
const HOOKS: Layout<table_hooks> = layout('table_hooks', table_hooks, {
  h0: embed(NF_HOOK_OPS),
  h1: embed(NF_HOOK_OPS),
  h2: embed(NF_HOOK_OPS),
  h3: embed(NF_HOOK_OPS),
  h4: embed(NF_HOOK_OPS),
})

/** A table as a module; every hook of it calls `hookfn`. */
function table_module(name: string, priority: number, hookfn: nf_hookfn): void {
  const hooks = DEFINE_STATIC(`iptable_${name}_hooks`, HOOKS)
  const ops = TABLE_HOOKS[name]!.map(n => [hooks.h0, hooks.h1, hooks.h2, hooks.h3, hooks.h4][n]!)
  const sym = symbol(`ipt_${name}_hook`, hookfn)
  const mod = define_module(`iptable_${name}`, {
    *init() {
      const err = yield* ipt_register_table(name, mod.addr)
      if (err !== 0) return err
      TABLE_HOOKS[name]!.forEach((hooknum, k) => {
        ops[k]!.hook = sym
        ops[k]!.hooknum = hooknum
        ops[k]!.priority = priority
        ops[k]!.owner = mod.addr
        nf_register_hook(ops[k]!)
      })
      return 0
    },
    *exit() {
      for (const o of ops) yield* nf_unregister_hook(o)
      yield* synchronize_kernel()
      yield* ipt_unregister_table(name)
    },
    uses: ['ip_tables'],
  })
}

const filter = define_table('filter')
function ipt_filter_hook(hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null): number {
  // Somebody with a raw socket: too short for the rules to look at, and no harm.
  if (hook === NF_IP_LOCAL_OUT && (skb.len < 20 || ip_hdrlen(skb.nh) < 20)) return NF_ACCEPT
  return ipt_do_table(skb, hook, indev, outdev, filter)
}
table_module('filter', NF_IP_PRI_FILTER, ipt_filter_hook)

const mangle = define_table('mangle')
function ipt_route_hook(hook: number, skb: sk_buff, indev: net_device | null, outdev: net_device | null): number {
  if (hook !== NF_IP_LOCAL_OUT) return ipt_do_table(skb, hook, indev, outdev, mangle)
  if (skb.len < 20 || ip_hdrlen(skb.nh) < 20) return NF_ACCEPT
  const saddr = ip_saddr(skb.nh)
  const daddr = ip_daddr(skb.nh)
  const tos = ip_tos(skb.nh)
  const mark = skb.nfmark
  const ret = ipt_do_table(skb, hook, indev, outdev, mangle)
  if (ret === NF_DROP || ret === NF_STOLEN || ret === NF_QUEUE) return ret
  const changed =
    saddr !== ip_saddr(skb.nh) || daddr !== ip_daddr(skb.nh) || tos !== ip_tos(skb.nh) || mark !== skb.nfmark
  return changed && ip_route_me_harder(skb) !== 0 ? NF_DROP : ret
}
table_module('mangle', NF_IP_PRI_MANGLE, ipt_route_hook)
