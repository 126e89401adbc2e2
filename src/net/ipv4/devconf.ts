/**
 * devconf.ts - the switches of IPv4 by device, net.ipv4.conf.*: of each device, of all, and what a new device begins with.
 *
 * Lock charter
 *   Each switch is one word, changed with rtnl held and looked at by anybody at any time.
 */
import { atomic, type Field, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'

export const DEVCONF = [
  'forwarding',
  'mc_forwarding',
  'accept_redirects',
  'send_redirects',
  'secure_redirects',
  'shared_media',
  'accept_source_route',
  'rp_filter',
  'proxy_arp',
  'medium_id',
  'bootp_relay',
  'log_martians',
  'tag',
  'arp_filter',
  'arp_announce',
  'arp_ignore',
  'disable_xfrm',
  'disable_policy',
  'force_igmp_version',
  'promote_secondaries',
] as const
export type DevconfName = (typeof DEVCONF)[number]

export class ipv4_devconf extends Struct {
  declare forwarding: number
  declare mc_forwarding: number
  declare accept_redirects: number
  declare send_redirects: number
  declare secure_redirects: number
  declare shared_media: number
  declare accept_source_route: number
  declare rp_filter: number
  declare proxy_arp: number
  declare medium_id: number
  declare bootp_relay: number
  declare log_martians: number
  declare tag: number
  declare arp_filter: number
  declare arp_announce: number
  declare arp_ignore: number
  declare disable_xfrm: number
  declare disable_policy: number
  declare force_igmp_version: number
  declare promote_secondaries: number
}
export const IPV4_DEVCONF: Layout<ipv4_devconf> = layout(
  'ipv4_devconf',
  ipv4_devconf,
  Object.fromEntries(DEVCONF.map(name => [name, atomic(word)])) as Record<DevconfName, Field>,
)
/** `all` and `default`. */
export const ipv4_devconf_all = DEFINE_STATIC('ipv4_devconf', IPV4_DEVCONF)
export const ipv4_devconf_dflt = DEFINE_STATIC('ipv4_devconf_dflt', IPV4_DEVCONF)

export function devconf_copy(to: ipv4_devconf, from: ipv4_devconf): void {
  for (const name of DEVCONF) to[name] = from[name]
}

/** devconf_init - a router, as this machine is one unless it is told otherwise. @context boot, CPU 0 */
export function devconf_init(): void {
  for (const name of DEVCONF) ipv4_devconf_dflt[name] = 0
  for (const name of ['forwarding', 'accept_redirects', 'send_redirects', 'secure_redirects', 'shared_media'] as const)
    ipv4_devconf_dflt[name] = 1
  ipv4_devconf_dflt.accept_source_route = 1
  devconf_copy(ipv4_devconf_all, ipv4_devconf_dflt) // 2.6.11: `all` does not accept source routes
  ipv4_devconf_all.accept_redirects = 0 // inet_forward_change: a router believes no redirects
}
