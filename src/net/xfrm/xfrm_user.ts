/**
 * xfrm_user.ts - states and policies as programs see and change them: the kernel's end of NETLINK_XFRM (net/xfrm/xfrm_user.c
 * of 2.6.11). A module, loaded when a program binds a socket of the protocol.
 *
 * Lock charter
 *   Requests are handled one after the other (xfrm_cfg_sem), in their sender's context. Messages to listeners are sent with
 *   xfrm_state_lock or the lock of a state held: netlink's locks are below them.
 */
import { embed, type Layout, layout, ptr, Struct } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { symbol } from '../../abi/symbol.js'
import { RAM } from '../../arch/ram.js'
import { EINVAL, EMSGSIZE, ENOBUFS, ENOENT, ENOMEM, ENOSYS, EPERM, ESRCH } from '../../lib/errno.js'
import { synchronize_kernel } from '../../rcu/rcupdate.js'
import { define_module } from '../../sched/module.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from '../../sched/semaphore.js'
import { skb_dequeue } from '../core/skb_queue.js'
import { __skb_pull, alloc_skb, consume_skb } from '../core/skbuff.js'
import { SOCK, type sock } from '../core/sock_types.js'
import type { sk_buff } from '../core/types.js'
import { netlink_kernel_create, netlink_kernel_release } from '../netlink/af_netlink.js'
import { netlink_ack, netlink_broadcast, netlink_dump_start, netlink_reply } from '../netlink/nl_send.js'
import {
  NLMSG_GOODSIZE,
  nlmsg_data,
  nlmsg_end,
  nlmsg_flags,
  nlmsg_len,
  nlmsg_put,
  nlmsg_room,
  nlmsg_seq,
  nlmsg_type,
  rta_data,
  rta_parse,
  rta_payload,
  rta_put,
} from '../netlink/nlmsg.js'
import {
  NETLINK_XFRM,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  NLMSG_HDRLEN,
  type netlink_callback,
  netlink_cb,
  nlmsg_align,
} from '../netlink/types.js'
import { IPPROTO_AH, IPPROTO_COMP, IPPROTO_ESP } from '../wire/ipv4.js'
import {
  XFRM_MAX_DEPTH,
  XFRM_MAX_KEY,
  XFRM_POLICY_BLOCK,
  XFRM_POLICY_MAX,
  type xfrm_policy,
  type xfrm_state,
  type xfrm_tmpl,
} from './types.js'
import { xfrm_aalg_get_byname, xfrm_calg_get_byname, xfrm_ealg_get_byname } from './xfrm_algo.js'
import { xfrm_init_state, type xfrm_mgr, xfrm_register_km, xfrm_unregister_km } from './xfrm_km.js'
import {
  xfrm_pol_put,
  xfrm_policy_all,
  xfrm_policy_alloc,
  xfrm_policy_delete,
  xfrm_policy_find,
  xfrm_policy_flush,
  xfrm_policy_insert,
} from './xfrm_policy.js'
import {
  xfrm_alloc_spi,
  xfrm_find_acq,
  xfrm_state_add,
  xfrm_state_all,
  xfrm_state_alloc,
  xfrm_state_delete,
  xfrm_state_flush,
  xfrm_state_kern,
  xfrm_state_lookup,
  xfrm_state_put,
  xfrm_state_update,
} from './xfrm_state.js'
import {
  ALGO,
  algo_bits,
  algo_name,
  algos_of,
  get_policy,
  get_selector,
  get_state,
  get_tmpl,
  put_acquire,
  put_algo,
  put_policy,
  put_state,
  put_tmpl,
  USER_ACQUIRE,
  USER_EXPIRE,
  USER_POLEXPIRE,
  USER_TMPL,
  USERPOLICY_ID,
  USERPOLICY_INFO,
  USERSA_ID,
  USERSA_INFO,
  USERSPI_INFO,
} from './xfrm_wire.js'

const dv = RAM.dv
const u8 = RAM.u8
const i32 = RAM.i32

const XFRM_MSG_BASE = 0x10
const [NEWSA, DELSA, GETSA, NEWPOLICY, DELPOLICY, GETPOLICY, ALLOCSPI] = [
  0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16,
] as const
const [ACQUIRE, EXPIRE, UPDPOLICY, UPDSA, POLEXPIRE, FLUSHSA, FLUSHPOLICY] = [
  0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d,
] as const
const XFRM_MSG_MAX = FLUSHPOLICY
const MIN: Record<number, number> = {
  ...{ [NEWSA]: USERSA_INFO, [UPDSA]: USERSA_INFO, [DELSA]: USERSA_ID, [GETSA]: USERSA_ID, [ALLOCSPI]: USERSPI_INFO },
  ...{ [NEWPOLICY]: USERPOLICY_INFO, [UPDPOLICY]: USERPOLICY_INFO, [DELPOLICY]: USERPOLICY_ID },
  ...{ [GETPOLICY]: USERPOLICY_ID, [FLUSHSA]: 1, [FLUSHPOLICY]: 0 },
  ...{ [ACQUIRE]: USER_ACQUIRE, [EXPIRE]: USER_EXPIRE, [POLEXPIRE]: USER_POLEXPIRE },
}
const XFRMA_ALG_AUTH = 1
const XFRMA_ALG_CRYPT = 2
const XFRMA_ALG_COMP = 3
const XFRMA_TMPL = 5
const XFRMA_MAX = 5
const XFRMGRP_ACQUIRE = 1
const XFRMGRP_EXPIRE = 2
const AF_INET = 2

class xfrm_user_t extends Struct {
  declare nl: sock | null
  declare cfg_sem: semaphore
}
const USER: Layout<xfrm_user_t> = layout('xfrm_user', xfrm_user_t, { nl: ptr(() => SOCK), cfg_sem: embed(SEMAPHORE) })
const user = DEFINE_STATIC('xfrm_user', USER)

type Attributes = readonly number[]
const attribute = (rta: Attributes, type: number): number => rta[type - 1] ?? 0

// ---- states ---------------------------------------------------------------------------------------------------------

/** Has a state of this protocol the algorithms that it must have, and no others? */
function algos_fit(proto: number, auth: boolean, crypt: boolean, comp: boolean): boolean {
  if (proto === IPPROTO_AH) return auth && !crypt && !comp
  if (proto === IPPROTO_ESP) return (auth || crypt) && !comp
  return proto === IPPROTO_COMP && comp && !auth && !crypt
}
/** verify_newsa_info @returns 0, -EINVAL */
function verify_newsa(at: number, rta: Attributes): number {
  const algos = [XFRMA_ALG_AUTH, XFRMA_ALG_CRYPT, XFRMA_ALG_COMP].map(type => attribute(rta, type))
  if (dv.getUint16(at + 212, true) !== AF_INET || u8[at + 214]! > 1) return -EINVAL
  const [auth, crypt, comp] = algos.map(alg => alg !== 0)
  if (!algos_fit(u8[at + 76]!, auth!, crypt!, comp!)) return -EINVAL
  for (const alg of algos) {
    if (alg === 0) continue
    const bits = rta_payload(alg) < ALGO ? -1 : algo_bits(rta_data(alg))
    if (bits < 0 || rta_payload(alg) - ALGO < (bits + 7) >> 3 || (bits + 7) >> 3 > XFRM_MAX_KEY) return -EINVAL
  }
  return 0
}

/** attach_one_algo, of each kind. @returns 0, -ENOSYS: unknown, -EINVAL: no such key */
function attach_algos(x: xfrm_state, rta: Attributes): number {
  const auth = attribute(rta, XFRMA_ALG_AUTH)
  const crypt = attribute(rta, XFRMA_ALG_CRYPT)
  const comp = attribute(rta, XFRMA_ALG_COMP)
  if (comp !== 0) {
    const algo = xfrm_calg_get_byname(algo_name(rta_data(comp)))
    if (algo === undefined) return -ENOSYS
    x.calg = algo.id // it has no key
  }
  if (auth !== 0) {
    const algo = xfrm_aalg_get_byname(algo_name(rta_data(auth)))
    if (algo === undefined) return -ENOSYS
    x.aalg = algo.id
    x.aalg_bits = algo_bits(rta_data(auth))
    u8.copyWithin(x.akey, rta_data(auth) + ALGO, rta_data(auth) + ALGO + (x.aalg_bits >> 3))
  }
  if (crypt === 0) return 0
  const algo = xfrm_ealg_get_byname(algo_name(rta_data(crypt)))
  if (algo === undefined) return -ENOSYS
  x.ealg = algo.id
  x.ealg_bits = algo_bits(rta_data(crypt))
  if (!algo.keybits.includes(x.ealg_bits)) return -EINVAL
  u8.copyWithin(x.ekey, rta_data(crypt) + ALGO, rta_data(crypt) + ALGO + (x.ealg_bits >> 3))
  return 0
}

/** xfrm_add_sa - @returns 0, -EINVAL, -ENOMEM, -ENOSYS, -ENOENT: no such protocol, -EEXIST, -ESRCH */
function* add_sa(at: number, rta: Attributes, update: boolean): Generator<void, number, void> {
  let err = verify_newsa(at, rta)
  if (err !== 0) return err
  const x = xfrm_state_alloc()
  if (x === null) return -ENOMEM
  get_state(x, at)
  err = attach_algos(x, rta)
  if (err === 0) err = yield* xfrm_init_state(x)
  if (err === 0) err = update ? xfrm_state_update(x) : xfrm_state_add(x)
  xfrm_state_put(x) // the database has its own
  return err
}

/** The state that a struct xfrm_usersa_id names. */
function named(at: number): xfrm_state | null {
  return xfrm_state_lookup(dv.getInt32(at), dv.getInt32(at + 16), u8[at + 22]!)
}
function del_sa(at: number): number {
  const x = named(at)
  if (x === null) return -ESRCH
  const err = xfrm_state_kern(x) ? -EPERM : xfrm_state_delete(x)
  xfrm_state_put(x)
  return err
}

interface Head {
  pid: number
  seq: number
  type: number
  flags: number
}
/** dump_one_state @returns false: there is no room */
function fill_state(skb: sk_buff, x: xfrm_state, h: Head, size = USERSA_INFO, hard = 0): boolean {
  const algos = algos_of(x)
  if (!nlmsg_room(skb, 16 + size + algos.length * (4 + ALGO + XFRM_MAX_KEY))) return false
  const nlh = nlmsg_put(skb, h.pid, h.seq, h.type, size, h.flags)
  put_state(x, nlmsg_data(nlh))
  if (size === USER_EXPIRE) u8[nlmsg_data(nlh) + USERSA_INFO] = hard
  else
    for (const [type, name, bits, key] of algos) put_algo(rta_put(skb, type, ALGO + ((bits + 7) >> 3)), name, bits, key)
  nlmsg_end(skb, nlh)
  return true
}
function fill_policy(skb: sk_buff, p: xfrm_policy, h: Head, size = USERPOLICY_INFO, hard = 0): boolean {
  if (!nlmsg_room(skb, 16 + size + 4 + p.xfrm_nr * USER_TMPL)) return false
  const nlh = nlmsg_put(skb, h.pid, h.seq, h.type, size, h.flags)
  put_policy(p, nlmsg_data(nlh))
  if (size === USER_POLEXPIRE) u8[nlmsg_data(nlh) + USERPOLICY_INFO] = hard
  put_tmpls(skb, p)
  nlmsg_end(skb, nlh)
  return true
}
function put_tmpls(skb: sk_buff, p: xfrm_policy): void {
  if (p.xfrm_nr === 0) return
  const at = rta_put(skb, XFRMA_TMPL, p.xfrm_nr * USER_TMPL)
  for (let k = 0; k < p.xfrm_nr; k++) put_tmpl(p, k, at + k * USER_TMPL)
}

/** An answer of one message. @returns 0, -errno */
function answer(in_skb: sk_buff, fill: (skb: sk_buff) => boolean): number {
  const skb = alloc_skb(NLMSG_GOODSIZE)
  if (skb === null) return -ENOMEM
  if (fill(skb)) return Math.min(0, netlink_reply(user.nl!, skb, netlink_cb(in_skb).pid))
  consume_skb(skb)
  return -EMSGSIZE
}
function head_of(in_skb: sk_buff, nlh: number, type: number, flags = 0): Head {
  return { pid: netlink_cb(in_skb).pid, seq: nlmsg_seq(nlh), type, flags }
}

function get_sa(skb: sk_buff, nlh: number): number {
  const x = named(nlmsg_data(nlh))
  if (x === null) return -ESRCH
  const err = answer(skb, s => fill_state(s, x, head_of(skb, nlh, NEWSA)))
  xfrm_state_put(x)
  return err
}
/** verify_userspi_info - a CPI has 16 bits. @returns 0, -EINVAL */
function verify_userspi(proto: number, min: number, max: number): number {
  const known = proto === IPPROTO_AH || proto === IPPROTO_ESP || (proto === IPPROTO_COMP && max < 0x10000)
  return known && min <= max ? 0 : -EINVAL
}
/** xfrm_alloc_userspi - @returns 0, -EINVAL, -ENOENT */
function alloc_userspi(skb: sk_buff, nlh: number): number {
  const at = nlmsg_data(nlh)
  const [min, max] = [dv.getUint32(at + USERSA_INFO, true), dv.getUint32(at + USERSA_INFO + 4, true)]
  const proto = u8[at + 76]!
  let err = verify_userspi(proto, min, max)
  if (err !== 0) return err
  const mode = u8[at + 214]!
  const [reqid, seq] = [dv.getInt32(at + 208, true), dv.getInt32(at + 204, true)]
  const x = xfrm_find_acq(proto, mode, reqid, dv.getInt32(at + 56), dv.getInt32(at + 80), seq)
  if (x === null) return -ENOENT
  err = xfrm_alloc_spi(x, min, max)
  if (err === 0) err = answer(skb, s => fill_state(s, x, head_of(skb, nlh, NEWSA)))
  xfrm_state_put(x)
  return err
}

// ---- policies -------------------------------------------------------------------------------------------------------

/** xfrm_add_policy - @returns 0, -EINVAL, -ENOBUFS, -EEXIST */
function add_policy(at: number, rta: Attributes, excl: boolean): number {
  const tmpl = attribute(rta, XFRMA_TMPL)
  const nr = tmpl === 0 ? 0 : Math.floor(rta_payload(tmpl) / USER_TMPL)
  const [dir, action, share] = [u8[at + 160]!, u8[at + 161]!, u8[at + 163]!]
  if (dir >= XFRM_POLICY_MAX || action > XFRM_POLICY_BLOCK || share > 3 || nr > XFRM_MAX_DEPTH) return -EINVAL
  if (dv.getUint16(at + 40, true) !== AF_INET || u8[at + 42]! > 32 || u8[at + 43]! > 32) return -EINVAL
  const policy = xfrm_policy_alloc()
  if (policy === null) return -ENOBUFS
  get_policy(policy, at)
  policy.index = 0
  policy.xfrm_nr = nr
  for (let k = 0; k < nr; k++) get_tmpl(policy, k, rta_data(tmpl) + k * USER_TMPL)
  const err = xfrm_policy_insert(dir, policy, excl)
  if (err !== 0) xfrm_pol_put(policy)
  return err
}

/** xfrm_get_policy - and delete. @returns 0, -EINVAL, -ENOENT */
function get_or_delete_policy(skb: sk_buff, nlh: number): number {
  const at = nlmsg_data(nlh)
  const dir = u8[at + 60]!
  if (dir >= XFRM_POLICY_MAX) return -EINVAL
  const key = xfrm_policy_alloc() // for its selector
  if (key === null) return -ENOMEM
  get_selector(key.sel, at)
  const policy = xfrm_policy_find(dir, dv.getInt32(at + 56, true), key.sel)
  xfrm_pol_put(key)
  if (policy === null) return -ENOENT
  let err = 0
  if (nlmsg_type(nlh) === DELPOLICY) err = xfrm_policy_delete(policy) ? 0 : -ENOENT
  else err = answer(skb, s => fill_policy(s, policy, head_of(skb, nlh, NEWPOLICY)))
  xfrm_pol_put(policy)
  return err
}

// ---- dumps ----------------------------------------------------------------------------------------------------------

/** What comes from number cb.args[0] on, as much as there is room for. */
function dump<T>(
  cb: netlink_callback,
  all: T[],
  put: (one: T) => void,
  fill: (one: T, h: Head) => boolean,
  type: number,
): void {
  const at = cb.args >> 2
  const h = head_of(cb.skb!, cb.nlh, type, NLM_F_MULTI)
  let n = i32[at]!
  while (n < all.length && fill(all[n]!, h)) n++
  i32[at] = n
  for (const one of all) put(one)
}
function dump_sa(skb: sk_buff, cb: netlink_callback): number {
  dump(cb, xfrm_state_all(), xfrm_state_put, (x, h) => fill_state(skb, x, h), NEWSA)
  return skb.len
}
const dump_sa_sym = symbol('xfrm_dump_sa', dump_sa)
function dump_policy(skb: sk_buff, cb: netlink_callback): number {
  const all = [0, 1, 2].flatMap(xfrm_policy_all)
  dump(cb, all, xfrm_pol_put, (p, h) => fill_policy(skb, p, h), NEWPOLICY)
  return skb.len
}
const dump_policy_sym = symbol('xfrm_dump_policy', dump_policy)

// ---- requests -------------------------------------------------------------------------------------------------------

const DUMPS = 1

/** xfrm_user_rcv_msg - @returns 0, -errno, DUMPS */
function* rcv_msg(sk: sock, skb: sk_buff, nlh: number): Generator<void, number, void> {
  const type = nlmsg_type(nlh)
  const flags = nlmsg_flags(nlh)
  const min = MIN[type]
  if ((flags & NLM_F_REQUEST) === 0 || type < XFRM_MSG_BASE) return 0
  if (type > XFRM_MSG_MAX || min === undefined) return -EINVAL
  if (netlink_cb(skb).eff_cap === 0) return -EPERM // even to look: keys are secret
  if ((type === GETSA || type === GETPOLICY) && (flags & NLM_F_DUMP) !== 0)
    return netlink_dump_start(sk, skb, nlh, type === GETSA ? dump_sa_sym : dump_policy_sym) || DUMPS
  const fixed = nlmsg_align(NLMSG_HDRLEN + min)
  if (nlmsg_len(nlh) < NLMSG_HDRLEN + min) return -EINVAL
  const rta: number[] = []
  if (!rta_parse(rta, XFRMA_MAX, nlh + fixed, nlmsg_len(nlh) - fixed)) return -EINVAL
  const at = nlmsg_data(nlh)
  if (type === NEWSA || type === UPDSA) return yield* add_sa(at, rta, type === UPDSA)
  if (type === NEWPOLICY || type === UPDPOLICY) return add_policy(at, rta, type === NEWPOLICY)
  if (type === DELSA) return del_sa(at)
  if (type === GETSA) return get_sa(skb, nlh)
  if (type === DELPOLICY || type === GETPOLICY) return get_or_delete_policy(skb, nlh)
  if (type === ALLOCSPI) return alloc_userspi(skb, nlh)
  if (type === FLUSHSA) xfrm_state_flush(u8[at]! === 255 ? 0 : u8[at]!)
  else if (type === FLUSHPOLICY) xfrm_policy_flush()
  else return -EINVAL // a message of the kernel's
  return 0
}

function* rcv_skb(sk: sock, skb: sk_buff): Generator<void, void, void> {
  while (skb.len >= NLMSG_HDRLEN) {
    const nlh = skb.data
    const len = nlmsg_len(nlh)
    if (len < NLMSG_HDRLEN || skb.len < len) return
    const err = yield* rcv_msg(sk, skb, nlh)
    if (err < 0 || (err === 0 && (nlmsg_flags(nlh) & NLM_F_ACK) !== 0)) netlink_ack(sk, skb, nlh, err)
    __skb_pull(skb, Math.min(nlmsg_align(len), skb.len))
  }
}
/** xfrm_netlink_rcv - @context process @locks takes xfrm_cfg_sem */
function* rcv(sk: sock): Generator<void, void, void> {
  yield* down(user.cfg_sem)
  for (let skb = skb_dequeue(sk.sk_receive_queue); skb !== null; skb = skb_dequeue(sk.sk_receive_queue)) {
    yield* rcv_skb(sk, skb)
    consume_skb(skb)
  }
  up(user.cfg_sem)
}
const rcv_sym = symbol('xfrm_netlink_rcv', rcv)

// ---- what the kernel says -------------------------------------------------------------------------------------------

/** @returns 0, -ENOBUFS, -ESRCH: nobody listens */
function tell(group: number, fill: (skb: sk_buff) => boolean): number {
  const skb = alloc_skb(NLMSG_GOODSIZE)
  if (skb === null || user.nl === null) {
    if (skb !== null) consume_skb(skb)
    return -ENOBUFS
  }
  fill(skb)
  netlink_cb(skb).dst_groups = group
  return netlink_broadcast(user.nl, skb, 0, group)
}
const said = (type: number): Head => ({ pid: 0, seq: 0, type, flags: 0 })

function acquire(x: xfrm_state, t: xfrm_tmpl, policy: xfrm_policy): number {
  return tell(XFRMGRP_ACQUIRE, skb => {
    const nlh = nlmsg_put(skb, 0, 0, ACQUIRE, USER_ACQUIRE, 0)
    put_acquire(x, t, policy, nlmsg_data(nlh))
    put_tmpls(skb, policy)
    nlmsg_end(skb, nlh)
    return true
  })
}
const netlink_mgr: xfrm_mgr = {
  acquire,
  expired: (x, hard) => void tell(XFRMGRP_EXPIRE, skb => fill_state(skb, x, said(EXPIRE), USER_EXPIRE, hard ? 1 : 0)),
  policy_expired: (p, hard) =>
    void tell(XFRMGRP_EXPIRE, skb => fill_policy(skb, p, said(POLEXPIRE), USER_POLEXPIRE, hard ? 1 : 0)),
}
const netlink_mgr_sym = symbol('xfrm_netlink_mgr', netlink_mgr)

/** xfrm_user_exit_halted - for the leak audit. @context a halted machine, or the module goes */
export function xfrm_user_exit_halted(): void {
  xfrm_unregister_km()
  if (user.nl !== null) netlink_kernel_release(user.nl)
  user.nl = null
}

define_module('xfrm_user', {
  *init() {
    init_MUTEX(user.cfg_sem)
    user.nl = netlink_kernel_create(NETLINK_XFRM, rcv_sym)
    if (user.nl === null) return -ENOMEM
    xfrm_register_km(netlink_mgr_sym)
    return 0
  },
  *exit() {
    xfrm_unregister_km()
    yield* synchronize_kernel()
    xfrm_user_exit_halted()
  },
  alias: `net-pf-16-proto-${NETLINK_XFRM}`,
})
