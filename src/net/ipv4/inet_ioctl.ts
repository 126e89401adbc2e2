/** inet_ioctl.ts - the ioctls of AF_INET sockets (net/ipv4/af_inet.c of 2.6.11): of the socket, of routes, of neighbours, of devices. */
import { type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym, symbol } from '../../abi/symbol.js'
import { net_ioctl, register_inet_config } from '../core/dev_ioctl.js'
import { SIOCGSTAMP, sock_get_timestamp } from '../core/sock_opt.js'
import type { sock } from '../core/sock_types.js'
import type { Call } from '../core/socket.js'
import { devinet_ioctl, devinet_ioctl_knows } from './devinet_ioctl.js'
import { ip_rt_ioctl, SIOCADDRT, SIOCDELRT } from './fib_ioctl.js'
import type { proto } from './inet_sock.js'

export const SIOCDARP = 0x8953
export const SIOCGARP = 0x8954
export const SIOCSARP = 0x8955

/** What a command of neighbours does. @context process @returns 0, -errno */
export type arp_ioctl_func = (cmd: number, arg: number) => Call
class inet_ioctls extends Struct {
  declare arp: Sym<arp_ioctl_func>
}
const IOCTLS: Layout<inet_ioctls> = layout('inet_ioctls', inet_ioctls, { arp: word })
const hooks = DEFINE_STATIC('inet_ioctls', IOCTLS)

/** register_arp_ioctl - SIOCSARP, SIOCGARP and SIOCDARP are known from here on. @context boot, CPU 0 */
export function register_arp_ioctl(f: Sym<arp_ioctl_func>): void {
  hooks.arp = f
}

/** What is configured through any socket. @returns null: it knows no such command */
function inet_config(cmd: number, arg: number): Call | null {
  if (cmd === SIOCADDRT || cmd === SIOCDELRT) return ip_rt_ioctl(cmd, arg)
  if (cmd >= SIOCDARP && cmd <= SIOCSARP && hooks.arp !== 0) return call(hooks.arp)(cmd, arg)
  return devinet_ioctl_knows(cmd) ? devinet_ioctl(cmd, arg) : null
}
const inet_config_sym = symbol('inet_config', inet_config)

/** inet_ioctl - @context process @returns 0, -EINVAL: nobody knows it, or what the command says */
export function* inet_ioctl(sk: sock, prot: proto, cmd: number, arg: number): Call {
  if (cmd === SIOCGSTAMP) return sock_get_timestamp(sk, arg)
  return prot.ioctl?.(sk, cmd, arg) ?? (yield* net_ioctl(cmd, arg))
}

/** inet_ioctl_init - @context boot, CPU 0 */
export function inet_ioctl_init(): void {
  register_inet_config(inet_config_sym)
}
