/**
 * Two processes on two CPUs change routes by netlink, and each hears what the other does. Requests are handled one after the other,
 * a close meets a broadcast, a dump meets changes.
 */

import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { fetch_add, store } from '../../../src/arch/atomic.js'
import { HALTING, power_down } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { configure_network, describe as describeAddress } from '../../../src/init/main.js'
import { run_program } from '../../../src/syscall/process.js'
import type { Libc } from '../../../src/user/libc.js'
import {
  attr,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTM,
  RTMGRP,
  receive,
  rtnl_change,
  rtnl_close,
  rtnl_dump,
  rtnl_open,
} from '../../../src/user/libnetlink.js'
import { clock_chip, cpu, nothing_leaked, power_on, secondary } from './machine.js'

export interface NetlinkArgs {
  /** Routes that each adds and deletes. */
  routes: number
  ticks: number
  /** CPU of the second process; the first is on CPU 0. */
  second: number
}

class result extends Struct {
  declare ended: number
  declare wrong: number
  declare heard: number
}
const RESULT: Layout<result> = layout('netlink_result', result, { ended: word, wrong: word, heard: word })
const r = DEFINE_STATIC('netlink_result', RESULT)
const ENDED = r.addr + RESULT.offset('ended')
const WRONG = r.addr + RESULT.offset('wrong')
const HEARD = r.addr + RESULT.offset('heard')

/** Adds routes that lead nowhere, looks at all, deletes them again. `arg`: who, and in the upper half how many. */
function* changer(arg: number): Libc {
  const who = arg & 0xff
  const count = arg >> 8
  const ear = yield* rtnl_open(RTMGRP.IPV4_ROUTE)
  const nl = yield* rtnl_open()
  if (typeof ear === 'number' || typeof nl === 'number') store(WRONG, 1)
  else {
    const route = (k: number): number[] => [2, 24, 0, 0, 254, 4, 0, 7, 0, 0, 0, 0, ...attr(1, [20, who, k, 0])]
    for (let k = 0; k < count; k++)
      if ((yield* rtnl_change(nl, RTM.NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route(k))) !== 0) store(WRONG, 2)
    const all = yield* rtnl_dump(nl, RTM.GETROUTE, route(0).slice(0, 12))
    if (typeof all === 'number' || all.filter(m => m.body[17] === who).length !== count) store(WRONG, 3)
    for (let k = 0; k < count; k++) if ((yield* rtnl_change(nl, RTM.DELROUTE, 0, route(k))) !== 0) store(WRONG, 4)
    let mine = 0
    for (let m = yield* receive(ear, 0x40); typeof m !== 'number'; m = yield* receive(ear, 0x40))
      for (const one of m) if (one.body[17] === who) mine++
    if (mine !== 2 * count) store(WRONG, 5)
    fetch_add(HEARD, mine)
    yield* rtnl_close(nl)
    yield* rtnl_close(ear)
  }
  if (fetch_add(ENDED, 1) === 1) power_down(HALTING)
  return 0
}
const changer_sym = symbol('test_netlink_changer', changer)

export function setup(args: NetlinkArgs): NetlinkArgs {
  power_on(2, { rx_arch: 2, loopback: 1, user_procs: 4 })
  configure_network({ ports: [], routes: [], neighbours: [] })
  run_program('first', changer_sym, 1 | (args.routes << 8), { cpu: 0 })
  run_program('second', changer_sym, 2 | (args.routes << 8), { cpu: args.second })
  return args
}

export const prepare = secondary
const clock = (args: NetlinkArgs): void => clock_chip(args.ticks)
export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, clock }
export const describe = describeAddress
export const outcome = (): string => `${RAM.i32[HEARD >> 2]} heard`

export function invariant(): void {
  const wrong = RAM.i32[WRONG >> 2]
  if (wrong !== 0) throw new Error(`a process found ${wrong}`)
  nothing_leaked()
}
