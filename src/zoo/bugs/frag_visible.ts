/** #40: a fragment queue can be found in its hash before it holds the reference for its timer. */
import { atomic, by, embed, type Layout, layout, ptr, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC, describe_addr } from '../../abi/section.js'
import { store } from '../../arch/atomic.js'
import { kmem_cache_alloc, kmem_cache_create, kmem_cache_free } from '../../mm/slab.js'
import { refcount_dec_and_test, refcount_inc } from '../../sync/refcount.js'
import { SPINLOCK, spin_lock, spin_lock_init, spin_unlock, type spinlock_t } from '../../sync/spinlock.js'
import { cpu_init, machine_init } from '../kit/machine.js'
import type { Twin } from '../kit/words.js'

class frag_queue extends Struct {
  declare refcnt: number
}
const QUEUE: Layout<frag_queue> = layout('frag_queue', frag_queue, { refcnt: atomic(word) })
const cache = kmem_cache_create('frag_queue', QUEUE, () => 4)

class frag_hash extends Struct {
  declare lock: spinlock_t
  declare first: frag_queue | null
}
const HASH: Layout<frag_hash> = layout('frag_hash', frag_hash, {
  lock: embed(SPINLOCK),
  first: by(
    'lock',
    ptr(() => QUEUE),
  ),
})
const hash = DEFINE_STATIC('frag_hash', HASH)

export function setup(twin: Twin) {
  machine_init(2, { slab_poison: 1 })
  spin_lock_init(hash.lock)
  return { fixed: twin === 'fixed' }
}
type Shared = ReturnType<typeof setup>

export const prepare = (_: Shared, me: { index: number }): void => cpu_init(me)
export const describe = describe_addr

function put(q: frag_queue): void {
  if (refcount_dec_and_test(q.addr)) kmem_cache_free(cache, q)
}

export const actors = {
  /** inet_frag_intern */
  'CPU 0'({ fixed }: Shared) {
    const q = kmem_cache_alloc(cache)!
    store(q.addr, fixed ? 3 : 2) // the hash's, the caller's, and the timer's
    spin_lock(hash.lock)
    hash.first = q
    spin_unlock(hash.lock)
    put(q) // its fragment is in
    if (!fixed) refcount_inc(q.addr)
    put(q) // the timer ran at once
  },
  /** inet_frag_evictor */
  'CPU 1'() {
    spin_lock(hash.lock)
    const q = hash.first
    hash.first = null
    spin_unlock(hash.lock)
    if (q !== null) put(q)
  },
}
