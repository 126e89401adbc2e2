/** loopback_dev.ts - which device is the loopback: routes to this machine itself lead through it. Set once, at boot. */
import { konst, type Layout, layout, ptr, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { NETDEV, type net_device } from './types.js'

class loopback_box extends Struct {
  declare dev: net_device | null
}
const BOX: Layout<loopback_box> = layout('loopback_dev', loopback_box, { dev: konst(ptr(() => NETDEV)) })
const box = DEFINE_STATIC('loopback_dev', BOX)

/** loopback_dev - or null: this machine has none, and its own addresses cannot be reached from inside. */
export function loopback_dev(): net_device | null {
  return box.dev
}
/** set_loopback_dev - @context boot */
export function set_loopback_dev(dev: net_device): void {
  box.dev = dev
}
