/** xfrm_km.ts - whose code transforms packets, who is told of what happens, and what time it is. Changed by modules that come and go. */
import { atomic, bytes, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { call, type Sym } from '../../abi/symbol.js'
import { load, store } from '../../arch/atomic.js'
import { now_ns } from '../../arch/cpu.js'
import { RAM } from '../../arch/ram.js'
import { ENOENT } from '../../lib/errno.js'
import { request_module, try_module_get } from '../../sched/module.js'
import { IPPROTO_AH, IPPROTO_COMP, IPPROTO_ESP, IPPROTO_IPIP } from '../wire/ipv4.js'
import type { xfrm_policy, xfrm_state, xfrm_tmpl, xfrm_type } from './types.js'

const i32 = RAM.i32

/** Protocols that transform packets. */
const PROTOS: readonly number[] = [IPPROTO_AH, IPPROTO_ESP, IPPROTO_COMP, IPPROTO_IPIP]

class xfrm_kms extends Struct {
  declare km: number
  declare types: number
}
const KMS: Layout<xfrm_kms> = layout('xfrm_kms', xfrm_kms, {
  km: atomic(word), // Sym<xfrm_mgr> of who is told; 0: nobody
  types: atomic(bytes(PROTOS.length * 8)), // of each: Sym<xfrm_type> and module
})
const kms = DEFINE_STATIC('xfrm_kms', KMS)

/** A key manager: who negotiates states, and hears of their end. Called with xfrm_state_lock or the lock of a state held. */
export interface xfrm_mgr {
  /** @returns 0: somebody will see to it */
  acquire(x: xfrm_state, t: xfrm_tmpl, policy: xfrm_policy): number
  expired(x: xfrm_state, hard: boolean): void
  policy_expired(policy: xfrm_policy, hard: boolean): void
}

/** xfrm_time - seconds since the machine was started, which has no other clock. */
export function xfrm_time(): number {
  return Math.floor(now_ns() / 1e9) + 1 // 0 means never
}

/** Index of a word; below 0: nobody transforms this protocol. */
function type_slot(proto: number): number {
  const k = PROTOS.indexOf(proto)
  return k < 0 ? -1 : (kms.types >> 2) + 2 * k
}

/** xfrm_register_type - @context process @returns false: there is one */
export function xfrm_register_type(proto: number, type: Sym<xfrm_type>, mod: number): boolean {
  if (i32[type_slot(proto)] !== 0) return false
  i32[type_slot(proto) + 1] = mod
  store(type_slot(proto) << 2, type)
  return true
}
export function xfrm_unregister_type(proto: number): void {
  store(type_slot(proto) << 2, 0)
}
/**
 * xfrm_init_state - the type of a new state, with a reference on its module, which is loaded if it is not there. @context process
 * @returns 0, -ENOENT, or what it says
 */
export function* xfrm_init_state(x: xfrm_state): Generator<void, number, void> {
  const slot = type_slot(x.proto)
  if (slot < 0) return -ENOENT
  if (load(slot << 2) === 0) yield* request_module(`xfrm-type-2-${x.proto}`)
  const type = load(slot << 2)
  const mod = i32[slot + 1]!
  if (type === 0 || !try_module_get(mod)) return -ENOENT
  x.type = type
  x.type_mod = mod
  return yield* call(x.type).init_state(x)
}

export function xfrm_register_km(km: Sym<xfrm_mgr>): void {
  store(kms.addr + KM, km)
}
export function xfrm_unregister_km(): void {
  store(kms.addr + KM, 0)
}
const KM = KMS.offset('km')
/** xfrm_km - who is told, or null. */
export function xfrm_km(): xfrm_mgr | null {
  const km = load(kms.addr + KM)
  return km === 0 ? null : call(km as Sym<xfrm_mgr>)
}

/** xfrm_km_init - @context boot, CPU 0 */
export function xfrm_km_init(): void {
  kms.km = 0
  i32.fill(0, kms.types >> 2, (kms.types >> 2) + 2 * PROTOS.length)
}
