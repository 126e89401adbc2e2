/** #59: iptables replaces its rules: it looks whether a CPU is inside the old ones before it has published the new ones. */
import { type Twin, word } from '../kit/words.js'

const OLD = 1
const NEW = 2

export function setup(twin: Twin) {
  return { fixed: twin === 'fixed', table: word(OLD), sequence: word(), old_freed: word() }
}
type Shared = ReturnType<typeof setup>

function wait_outside({ sequence }: Shared): void {
  const was = Atomics.load(sequence, 0)
  if ((was & 1) !== 0) while (Atomics.load(sequence, 0) === was);
}

export const actors = {
  /** xt_write_recseq_begin and _end around the rules. */
  packet({ table, sequence, old_freed }: Shared) {
    Atomics.add(sequence, 0, 1)
    const rules = Atomics.load(table, 0)
    if (rules === OLD && Atomics.load(old_freed, 0) === 1) throw new Error('use after free of the old rules')
    Atomics.add(sequence, 0, 1)
  },
  replace(s: Shared) {
    if (!s.fixed) wait_outside(s)
    Atomics.store(s.table, 0, NEW)
    if (s.fixed) wait_outside(s)
    Atomics.store(s.old_freed, 0, 1)
  },
}
