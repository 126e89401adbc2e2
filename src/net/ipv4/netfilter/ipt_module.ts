/** ipt_module.ts - a module of matches and targets, which `ip_tables` loads when a rule names one of them. */
import { define_module } from '../../../sched/module.js'
import { ipt_register, ipt_unregister } from './ip_tables.js'

/** extension_module - named ipt_NAME after what it brings. */
export function extension_module(name: string, brings: readonly ('match' | 'target')[], uses: string[] = []): void {
  const mod = define_module(`ipt_${name}`, {
    *init() {
      for (const kind of brings) ipt_register(kind, name, mod.addr)
      return 0
    },
    *exit() {
      for (const kind of brings) ipt_unregister(kind, name)
    },
    uses: ['ip_tables', ...uses],
  })
}
