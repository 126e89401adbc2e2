/** waits.ts - of the zoo's list: locks, wake-ups that get lost, loops that never end. */
import type { Chapter } from './index.js'

export const WAITS: readonly Chapter[] = [
  {
    title: 'Lock order and context',
    bugs: [
      {
        number: '1',
        name: 'unix_abba',
        title: 'Two AF_UNIX sockets connect to each other',
        source: 'ABBA of lib/locking-selftest.c; CVE-2024-54683, f36b01994d68',
        expected: ['deadlock'],
        story:
          'Each of two connecting sockets locks its own state first and its peer second. When both have done the first half, each ' +
          'waits for what the other one holds. The fix takes the two locks in the order of their addresses.',
      },
      {
        number: '2',
        name: 'netlink_table',
        title: 'A table read-locked with interrupts on, write-locked by an interrupt',
        source: 'CVE-2023-53731, 8d61f926d420',
        expected: ['lock order', 'exception', 'deadlock'],
        kernel: true,
        story:
          'A process holds a table for reading and leaves interrupts on. An interrupt on that CPU wants to write an error into the ' +
          'table: it waits for the very process that it keeps from going on. The fix reads with interrupts off.',
      },
      {
        number: '3',
        name: 'neighbour_bh',
        title: 'A lock of process context that a soft interrupt of the same CPU takes too',
        source: 'irqsafe rows of lib/locking-selftest.c',
        expected: ['lock order', 'exception', 'deadlock'],
        kernel: true,
        story:
          'A process deletes a forwarding entry under the lock of its table, without keeping bottom halves off. A frame comes in, and ' +
          'the receiving soft interrupt, which runs on top of that process, learns an address and wants the lock. The fix is spin_lock_bh.',
      },
      {
        number: '4',
        name: 'irq_chain',
        title: 'A lock of interrupts is held by who takes one that is none, over three CPUs',
        source: 'safe-A + unsafe-B of lib/locking-selftest.c',
        expected: ['lock order', 'deadlock'],
        kernel: true,
        story:
          'An interrupt takes A. Somebody holds A, with interrupts off as he must, and takes B. Somebody else holds B with interrupts ' +
          'on, and there the interrupt comes. He waits for A, the holder of A for B. The fix holds B with interrupts off as well.',
      },
      {
        number: '5',
        name: 'read_recursion',
        title: 'A reader reads once more while a writer waits',
        source: 'queued rwlock rows of lib/locking-selftest.c',
        expected: ['deadlock'],
        story:
          'With a fair rwlock a reader may not pass a writer that waits. A dump that holds the lock calls a helper that takes it again: ' +
          'it stands behind the writer, which waits for the dump. The fix calls the half of the helper that takes no lock.',
      },
      {
        number: '7',
        name: 'flush_under_rtnl',
        title: 'Close waits under rtnl for a work item that wants rtnl',
        source: '4e6045f13478; CVE-2025-40120, 3d3c4cd5c62f',
        expected: ['deadlock'],
        story:
          'The close path holds rtnl and waits until the work queue has run dry. The item in it begins by taking rtnl. No two locks ' +
          'are in it, so no lock order shows it. The fix flushes before it takes rtnl.',
      },
      {
        number: '8',
        name: 'redirect_loop',
        title: 'A packet redirected to its own device meets its own queue lock',
        source: 'CVE-2024-27010, 0f022d32c3ec',
        expected: ['lock order', 'exception', 'deadlock'],
        kernel: true,
        story:
          'An action of a queueing discipline sends a packet on to another device, and that is the one it comes from. The lock of its ' +
          'root is held for this packet already. The fix sees that its own CPU holds it, and drops the packet.',
      },
      {
        number: '10',
        name: 'sleep_under_lock',
        title: 'An allocation that may sleep, under a spinlock',
        source: 'CVE-2026-63989, 5eec4427b89c',
        expected: ['sleep in atomic'],
        kernel: true,
        story:
          'A bridge locks its ports and allocates the reply to a request with GFP_KERNEL. When memory is short the process sleeps with the ' +
          'lock held. might_sleep says so whether it is short or not. The fix allocates first.',
      },
      {
        number: '13',
        name: 'nested_flags',
        title: 'Two spin_lock_irqsave with one variable for the flags',
        source: 'double-unlock and irq-flag rows of lib/locking-selftest.c',
        expected: ['context imbalance'],
        kernel: true,
        story:
          'The second lock saves "interrupts are off" over what the first one saved. Both are released, interrupts stay off, and ' +
          'the CPU is deaf from then on. The fix is a second variable.',
      },
    ],
  },
  {
    title: 'Lost wake-ups and stuck queues',
    bugs: [
      {
        number: '14',
        name: 'poll_barrier',
        title: 'poll looks for data before it is on the wait queue',
        source: 'a57de0b4336e, "net: adding memory barrier to the poll and receive callbacks"',
        expected: ['lost wakeup'],
        story:
          'poll queues itself and looks for data; the sender stores data and looks whether anybody is queued. Without a barrier a ' +
          'processor may look before it has queued, and then both see nothing. Here the two are swapped as the processor would. ' +
          'The fix keeps them in order.',
      },
      {
        number: '15',
        name: 'napi_complete',
        title: 'A frame between the last look at the ring and the end of the poll',
        source: '39e6c8208d7b, "net: solve a NAPI race"',
        expected: ['invariant', 'lost wakeup'],
        kernel: true,
        story:
          'A poll has seen the ring empty. Before it takes itself off the list a frame comes in on another CPU, whose interrupt finds ' +
          'the device scheduled and does nothing. The frame waits until the next one comes. The fix looks once more after it is off ' +
          'the list.',
      },
      {
        number: '18',
        name: 'migrated_accept',
        title: 'A pending connection moves to another listener, whose sleeper is not told',
        source: 'CVE-2026-46015, 3864c6ba1e04',
        expected: ['lost wakeup'],
        story:
          'A listener of a reuseport group closes, and its pending connections move to another one. A process sleeps there in ' +
          'accept, and nobody wakes it. The fix calls the data-ready callback of the new listener.',
      },
      {
        number: '19',
        name: 'softirq_pending',
        title: 'The mask of pending soft interrupts changed with interrupts on',
        source: 'a classic of per-CPU words',
        expected: ['invariant', 'lost wakeup'],
        kernel: true,
        story:
          'The mask is read, a bit is added, it is written back. An interrupt between the two raises NET_RX, and the old mask is ' +
          'written over it. A per-CPU word needs no lock, but it needs interrupts off.',
      },
      {
        number: '21',
        name: 'constant_condition',
        title: 'A condition variable that sleeps on a word which never changes',
        source: 'npm atomics-sync 1.0.3',
        expected: ['lost wakeup'],
        story:
          'wait unlocks the mutex and sleeps on a word that is 0 for ever. A signal between the two finds no sleeper, and the sleeper ' +
          'finds no reason not to sleep. The fix counts the signals in that word, and sleeps for the count that it saw under the mutex.',
      },
    ],
  },
  {
    title: 'Stalls',
    bugs: [
      {
        number: '48',
        name: 'device_reference',
        title: 'An error path keeps its reference to the device',
        source: 'CVE-2021-47555, 01d9cc2dea3f',
        expected: ['stall'],
        story:
          'A packet that is too big is refused, and the reference that was taken for it stays. Unregistering the device waits until ' +
          'all references are back, which they never are. The fix is one dev_put.',
      },
      {
        number: '66',
        name: 'zero_interval',
        title: 'A timer that re-arms itself at an interval of 0',
        source: 'CVE-2025-39773, d1547bf460ba',
        expected: ['stall'],
        story:
          'The user sets the interval of a periodic query to 0. The handler arms its timer for now, and the loop over all timers that ' +
          'are due finds it due again. The CPU never leaves its soft interrupt. The fix refuses such an interval.',
      },
      {
        number: '67',
        name: 'busy_kthread',
        title: 'A thread that polls and never passes a quiescent state',
        source: 'CVE-2026-43385, 1a86a1f7d889',
        expected: ['stall'],
        story:
          'A kernel thread polls a device for as long as there is work, and never tells RCU that it is outside of all readers. Who ' +
          'waits for a grace period waits for ever, and it is he who would stop the thread. The fix reports once a round.',
      },
      {
        number: '69',
        name: 'ticket_wrap',
        title: 'A ticket lock whose tickets are too narrow',
        source: 'the lock of 2.6.25, whose tickets had 8 bits and served at most 256 CPUs',
        expected: ['exception'],
        story:
          'With as many waiters as there are tickets two of them hold the same one, and both are served. Here a ticket has one bit and ' +
          'there are three CPUs. The fix makes it wider.',
      },
    ],
  },
]
