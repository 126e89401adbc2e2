/** The rules of table nat are replaced while datagrams go through two CPUs: each goes by the old ones or by the new ones, whole. */
import { type Layout, layout, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { load, store } from '../../../src/arch/atomic.js'
import { POWER, RUNNING } from '../../../src/arch/machine.js'
import { describe as describeAddress } from '../../../src/init/main.js'
import { kernel_thread } from '../../../src/sched/sched.js'
import { all_accounted, GatewayBoard, gateway, load_rules, public_end } from './gateway.js'
import { clock_chip, cpu, secondary } from './machine.js'

export interface RulesArgs {
  /** Datagrams meanwhile, each of a host of its own. */
  frames: number
  /** The CPU of the process. */
  operator: number
  ticks: number
}

const OLD = '-A POSTROUTING -o eth2 -p udp -j SNAT --to-source 192.0.2.10\n-A POSTROUTING -j DROP'
const NEW = ':own - [0:0]\n-A POSTROUTING -p udp -j own\n-A own -j SNAT --to-source 192.0.2.20'

class progress extends Struct {
  declare replaced: number
}
const PROGRESS: Layout<progress> = layout('rules_progress', progress, { replaced: word })
const REPLACED = DEFINE_STATIC('rules_progress', PROGRESS).addr

const operate_sym = symbol('test_replace_rules', function* () {
  const err = yield* load_rules(NEW)
  store(REPLACED, err === 0 ? 1 : -1)
  return 0
})

export function setup(args: RulesArgs): RulesArgs {
  gateway(OLD)
  kernel_thread('iptables', operate_sym, 0, { cpu: args.operator })
  return args
}
export const prepare = secondary

function board(args: RulesArgs): void {
  const b = new GatewayBoard()
  for (let k = 0; k < args.frames; k++) b.offer({ port: k & 1, host: 2 + k, dport: 40 + k })
  while (load(REPLACED) === 0 && load(POWER) === RUNNING) b.step()
  if (load(REPLACED) < 0) throw new Error('the new rules were refused')
  for (const p of b.last()) {
    const [host, end] = [p.payload[8]!, public_end(p)]
    if (end !== '192.0.2.20:5000' && (host >= 100 || end !== '192.0.2.10:5000'))
      throw new Error(`host ${host} is ${end}`)
  }
  b.off()
}
const clock = (args: RulesArgs): void => clock_chip(args.ticks)

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, board, clock }
export const describe = describeAddress

export function invariant(): void {
  const drops = all_accounted()
  if (Object.keys(drops).length > 0) throw new Error(`dropped ${JSON.stringify(drops)}`)
}
