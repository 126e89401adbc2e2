/** iptables.ts - rules for a machine of one thread, loaded by a process of it. */
import { symbol } from '../../src/abi/symbol.js'
import { parseIptables } from '../../src/lab/iptables/parse.js'
import { saveIptables } from '../../src/lab/iptables/save.js'
import { table_blob } from '../../src/lib/iptables.js'
import { ipt_get_entries, ipt_replace } from '../../src/net/ipv4/netfilter/ip_tables_user.js'
import { kernel_thread } from '../../src/sched/sched.js'
import type { Script } from './script.js'

/** runTask - a generator as a process; time passes until it has ended. */
export function runTask<T>(s: Script, body: () => Generator<void, T, void>): T {
  const result: { value?: T; done: boolean } = { done: false }
  const task = symbol('test_task', function* () {
    result.value = yield* body()
    result.done = true
    return 0
  })
  kernel_thread('test', task, 0, { cpu: 0 })
  for (let k = 0; k < 100 && !result.done; k++) s.pass(1)
  if (!result.done) throw new Error('the process does not end')
  return result.value as T
}

export function loadRules(s: Script, text: string): void {
  for (const table of parseIptables(text, 'rules')) {
    const err = runTask(s, () => ipt_replace(table_blob(table)))
    if (err !== 0) throw new Error(`table ${table.name}: ${err}`)
  }
}

export function saved(table: string): string {
  const blob = ipt_get_entries(table)
  return blob === null ? '' : saveIptables(blob)
}
