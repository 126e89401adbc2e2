/** screend.ts - a packet filter in user mode (Mogul 1989): one system call for each packet in, one for its verdict. */
import { symbol } from '../abi/symbol.js'
import { cost } from '../arch/cost.js'
import { cond_resched } from '../sched/sched.js'
import { user_work } from '../syscall/entry.js'
import { sys_screen_read, sys_screen_verdict } from '../syscall/screen.js'

const COST_RULES = cost('screend_rules')

/** screend - accepts every packet, as in the measurements of 1996. Never ends. @context process */
export function* screend(): Generator<void, number, void> {
  for (;;) {
    const packet = yield* sys_screen_read()
    user_work(COST_RULES)
    sys_screen_verdict(packet, true)
    yield* cond_resched()
  }
}
export const screend_sym = symbol('screend', screend)
