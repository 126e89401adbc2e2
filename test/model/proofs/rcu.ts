/**
 * An element is taken out of a list that other CPUs read, and freed when all of them have been quiescent once: the kernel's
 * readers, its pointers and its slab. `wait`: who waits for the readers.
 *
 *   counter   the updater itself, for a counter that each reader stores when it has left
 *   call_rcu  the kernel's grace periods
 *
 * `broken`: it is freed at once.
 */
import { embed, type Layout, layout, ptr, rcu, Struct, word } from '../../../src/abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../../src/abi/section.js'
import { symbol } from '../../../src/abi/symbol.js'
import { load, store } from '../../../src/arch/atomic.js'
import { cpu_relax } from '../../../src/arch/cpu.js'
import { do_softirq } from '../../../src/irq/softirq.js'
import { tasklets_init } from '../../../src/irq/tasklet.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free, objects_out } from '../../../src/mm/slab.js'
import {
  call_rcu,
  RCU_HEAD,
  rcu_assign_pointer,
  rcu_check_callbacks,
  rcu_dereference,
  rcu_dereference_protected,
  type rcu_head,
  rcu_init,
  rcu_pending,
  rcu_read_lock,
  rcu_read_unlock,
} from '../../../src/rcu/rcupdate.js'
import { add_preempt_count, HARDIRQ_OFFSET } from '../../../src/sync/preempt.js'
import { cpu_init, machine_init } from '../../../src/zoo/kit/machine.js'

export interface Args {
  cpus: number
  wait: 'counter' | 'call_rcu'
  /** With call_rcu: of the updater, and of each reader. */
  ticks: [number, number]
  broken: boolean
}

class element extends Struct {
  declare next: element | null
  declare value: number
  declare head: rcu_head
}
const ELEMENT: Layout<element> = layout('element', element, {
  next: rcu(ptr(() => ELEMENT)),
  value: word,
  head: embed(RCU_HEAD),
})
const elements = kmem_cache_create('element', ELEMENT, () => 4)
class list extends Struct {
  declare first: element | null
  declare quiet: number
  declare quiet2: number
}
const LIST: Layout<list> = layout('list', list, { first: rcu(ptr(() => ELEMENT)), quiet: word, quiet2: word })
const l = DEFINE_STATIC('list', LIST)
const QUIET = l.addr + LIST.offset('quiet')
const NEXT = ELEMENT.offset('next')

const free_sym = symbol('proof_free', (head: number) => kmem_cache_free(elements, ELEMENT.container_of('head', head)))

export function setup(args: Args): Args {
  machine_init(args.cpus, { slab_poison: 1 })
  tasklets_init()
  rcu_init(args.cpus)
  l.quiet = 0
  l.quiet2 = 0
  const [one, two] = [kmem_cache_alloc(elements)!, kmem_cache_alloc(elements)!]
  two.value = 2
  two.next = null
  one.value = 1
  one.next = two
  l.first = one
  return args
}

export function prepare(_: Args, me: { index: number }): void {
  cpu_init(me)
}

function tick(): void {
  add_preempt_count(HARDIRQ_OFFSET)
  if (rcu_pending()) rcu_check_callbacks(true)
  add_preempt_count(-HARDIRQ_OFFSET)
  do_softirq()
}

function read(): void {
  let sum = 0
  rcu_read_lock()
  for (let at = rcu_dereference(l.addr); at !== 0; at = rcu_dereference(at + NEXT)) sum += ELEMENT.ref(at).value
  rcu_read_unlock()
  if (sum !== 2 && sum !== 3) throw new Error(`the elements add up to ${sum}`)
}

function remove({ cpus, wait, broken }: Args): void {
  const old = ELEMENT.ref(rcu_dereference_protected(l.addr))
  rcu_assign_pointer(l.addr, rcu_dereference_protected(old.addr + NEXT))
  if (!broken && wait === 'call_rcu') {
    call_rcu(old.head, free_sym)
    return
  }
  for (let cpu = 1; !broken && cpu < cpus; cpu++) while (load(QUIET + (cpu - 1) * 4) === 0) cpu_relax()
  kmem_cache_free(elements, old)
}

/** CPU 0 takes the first element out; the others read. */
function cpu(args: Args, me: { index: number }): void {
  if (me.index >= args.cpus) return
  if (me.index === 0) remove(args)
  else read()
  if (args.wait === 'counter') {
    if (me.index > 0) store(QUIET + (me.index - 1) * 4, 1)
  } else for (let k = 0; k < args.ticks[me.index > 0 ? 1 : 0]; k++) tick()
}

export const actors = { 'CPU 0': cpu, 'CPU 1': cpu, 'CPU 2': cpu }
export const describe = describe_addr

export const outcome = (): string => `${objects_out(elements as never).length} left`
