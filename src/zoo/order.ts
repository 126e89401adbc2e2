/** order.ts - of the zoo's list: ordering, seqlocks, tearing, and what only JavaScript has. */
import type { Chapter } from './index.js'

export const ORDER: readonly Chapter[] = [
  {
    title: 'Ordering, seqlock, tearing',
    bugs: [
      {
        number: '59',
        name: 'table_replace',
        title: 'The rules are freed that a CPU is still inside of',
        source: 'CVE-2021-29650, 175e476b8cdf',
        expected: ['exception'],
        story:
          'Replacing a table publishes the new rules, and waits until each CPU has been outside of the old ones. Without a barrier a ' +
          'processor looks at the CPUs first; a packet then enters the old rules. Here the two are swapped as the processor would. The ' +
          'fix keeps them in order.',
      },
      {
        number: '61',
        name: 'torn_counter',
        title: 'A 64-bit counter is read between its two words',
        source: 'rules of u64_stats_sync; CVE-2023-52522, 25563b581ba3',
        expected: ['seqlock', 'exception'],
        kernel: true,
        story:
          'On a 32-bit machine a byte counter is two words. A reader between the two writes sees a value that never was, 4 GiB off. The ' +
          'fix looks at the sequence once more, and reads again when it has moved.',
      },
      {
        number: '63',
        name: 'half_a_mac',
        title: 'A hardware header of half the old address and half the new',
        source: 'history of hh_lock in 2.6',
        expected: ['exception'],
        kernel: true,
        story:
          'A sender copies the cached hardware header while the neighbour moves. The reader does look at a sequence, but the writer ' +
          'writes without counting it up. The fix is the writer half of the seqlock.',
      },
      {
        number: '64',
        name: 'checked_init',
        title: 'Double-checked: the pointer is published before its fields',
        source: 'MP+poonceonces of the kernel memory model',
        expected: ['data race', 'exception'],
        story:
          'Who finds the pointer set takes the table as ready and does not lock. It is set first and filled in second. The fix publishes ' +
          'last.',
      },
    ],
  },
  {
    title: 'Only in JavaScript',
    bugs: [
      {
        number: 'J3',
        name: 'leftover_waiter',
        title: 'A waitAsync that nobody wants any more eats a notify',
        source: 'emscripten#27492',
        expected: ['lost wakeup'],
        story:
          'A promise of Atomics.waitAsync cannot be cancelled. The word it sleeps on is used for something else, and the one notify that ' +
          'was meant for the new sleeper wakes the old promise. The fix notifies the word when it is let go.',
      },
      {
        number: 'J4',
        name: 'stray_notify',
        title: 'A wake-up taken for the answer',
        source: 'sqlite-wasm#12, extism js-sdk#52',
        expected: ['exception'],
        story:
          'A caller sleeps once and reads the result. Any notify on that word ends its sleep, also one that was for an earlier user. The ' +
          'fix looks at the word, in a loop.',
      },
      {
        number: 'J5',
        name: 'plain_flag',
        title: 'A flag stored by Atomics, read without',
        source: 'a classic of workers',
        expected: ['data race'],
        story: 'One side of a flag is atomic, the other is flag[0]. Nothing orders the two. The fix is Atomics.load.',
      },
      {
        number: 'J6',
        name: 'ring_index',
        title: 'A ring tells of an element before it is there',
        source: 'a classic of single-producer rings',
        expected: ['data race', 'exception'],
        story: 'The index is published first and the slot is written second. The fix swaps the two lines.',
      },
      {
        number: 'J7',
        name: 'mixed_size',
        title: 'A byte of a word that another one writes as a whole',
        source: 'Watt et al., PLDI 2020: accesses of several sizes',
        expected: ['data race'],
        story:
          'An Int32Array and a Uint8Array lie over the same bytes. They are two variables to who reads the code, and one to the memory. ' +
          'The fix gives the count a word of its own.',
      },
      {
        number: 'J8',
        name: 'sync_main',
        title: 'The main thread waits for a worker that needs it',
        source: 'synchronous calls into workers, such as those of synckit and emscripten',
        expected: ['deadlock'],
        story:
          'The main thread sleeps until the worker is done. The worker asks it for something first (a DOM node, a file, another worker). ' +
          'The fix serves requests while it waits.',
      },
      {
        number: 'J9',
        name: 'float_counter',
        title: 'A counter in a Float64Array',
        source: 'ECMA-262, IsNoTearConfiguration',
        expected: ['data race', 'invariant'],
        story:
          'Two threads add to a Float64 element. One addition is lost, and where the language allows it a reader sees half of a write. ' +
          'The fix is a BigInt64Array and Atomics.add.',
      },
    ],
  },
]
