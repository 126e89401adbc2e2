/** How a machine dies: what the dump says, and that a halt does not hide it. */
import { beforeEach, describe, expect, test } from 'vitest'
import { describe_addr } from '../../../src/abi/section.js'
import { store } from '../../../src/arch/atomic.js'
import { BUG_ON, dump, oops, set_entry } from '../../../src/arch/cpu.js'
import { HALTING, KernelPanic, PANIC, PANIC_LEN, POWER, panic_text, RUNNING } from '../../../src/arch/machine.js'
import { RAM } from '../../../src/arch/ram.js'
import { kfree, kmalloc } from '../../../src/mm/kmalloc.js'
import { caches } from '../../../src/mm/slab.js'
import { RWLOCK, read_lock, read_unlock, rwlock_init, write_lock, write_unlock } from '../../../src/sync/rwlock.js'
import { spin_lock, spin_unlock } from '../../../src/sync/spinlock.js'
import { Solo } from '../../helpers/solo.js'

new Solo({ ports: [{}] })
set_entry({ describe: addr => describe_addr(addr) ?? `0x${addr.toString(16)}` })
const held = (): string => /^held locks: (.*)$/m.exec(dump('test', new Error('here')))![1]!

describe('the dump names the locks that are held', () => {
  test('in the order in which they were taken, also rwlocks and how', () => {
    const a = RWLOCK.make(kmalloc(64))
    const b = RWLOCK.make(kmalloc(64))
    rwlock_init(a)
    rwlock_init(b)
    const name = (addr: number): string => describe_addr(addr)!
    expect(held()).toBe('none')
    write_lock(a)
    read_lock(b)
    read_lock(b) // as an interrupt handler may
    expect(held()).toBe(`${name(a.addr)}(w) ${name(b.addr)}(r) ${name(b.addr)}(r)`)
    expect(name(a.addr)).toMatch(/^size-64\[\d+\]/)
    write_unlock(a)
    read_unlock(b)
    expect(held()).toBe(`${name(b.addr)}(r)`)
    read_unlock(b)
    expect(held()).toBe('none')
    kfree(a.addr)
    kfree(b.addr)
  })
  test('by the object and its field when they lie in a slab', () => {
    const cache = caches.find(c => c.name === 'net_device')!
    const device = cache.layout.ref(cache.base) as unknown as { xmit_lock: Parameters<typeof spin_lock>[0] }
    spin_lock(device.xmit_lock)
    expect(held()).toBe('net_device[0].xmit_lock')
    spin_unlock(device.xmit_lock)
  })
})

describe('in an orderly halt', () => {
  beforeEach(() => {
    store(PANIC_LEN, 0)
    store(POWER, HALTING)
  })
  test('a broken invariant is a panic', () => {
    expect(() => BUG_ON(true, 'found while halting')).toThrow(KernelPanic)
    expect(RAM.i32[POWER >> 2]).toBe(PANIC)
    expect(panic_text()).toMatch(/found while halting/)
  })
  test('an exception is one', () => {
    oops(new TypeError('gone'))
    expect(panic_text()).toMatch(/Oops: TypeError: gone/)
  })
  test('but only the first of a machine', () => {
    store(POWER, RUNNING)
    oops(new TypeError('first'))
    oops(new TypeError('second'))
    expect(panic_text()).toMatch(/first/)
  })
})
