/** lifetimes.ts - of the zoo's list: reference counts and RCU. */
import type { Chapter } from './index.js'

export const LIFETIMES: readonly Chapter[] = [
  {
    title: 'Reference counts and lifetime',
    bugs: [
      {
        number: '36',
        name: 'dst_from_zero',
        title: 'A cached route is held when its last reference has gone',
        source: 'f88649721268, "ipv4: fix dst race in sk_dst_get()"',
        expected: ['exception'],
        kernel: true,
        story:
          'sk_dst_get reads the cached route of a socket without a lock, and holds it. In between the cache is reset, the count falls to ' +
          '0 and the route is destroyed; the count goes up from 0 again. The fix takes a reference only while there is one.',
      },
      {
        number: '38',
        name: 'timewait_reuse',
        title: 'connect reuses a timewait entry that dies',
        source: 'CVE-2024-36904, f2db7230f73a',
        expected: ['refcount'],
        story:
          'connect finds a timewait entry in the hash table and takes a reference. Its timer has just dropped the last one. The count ' +
          'says so: addition on 0. The fix takes a reference only while there is one.',
      },
      {
        number: '40',
        name: 'frag_visible',
        title: 'A fragment queue can be found before its references are counted',
        source: 'CVE-2014-0100, 24b9bf43e93e',
        expected: ['refcount', 'use after free', 'data race'],
        kernel: true,
        story:
          'A new queue is linked into its hash, and counted up for its timer afterwards. The evictor finds it in between and drops what ' +
          'it takes for the last references. The slab is poisoned, so the count that is put next is none. The fix counts first.',
      },
      {
        number: '41',
        name: 'reqsk_timer',
        title: 'A timer that runs is not pending',
        source: 'CVE-2024-50154, e8c526f2bdf1',
        expected: ['invariant'],
        story:
          'A SYN request is dropped, and its timer is stopped if it is pending. Just then it is not: its handler runs, and arms it ' +
          'once more when the request has been freed. The fix always calls timer_delete_sync, which waits for the handler.',
      },
      {
        number: '43',
        name: 'double_timer',
        title: 'The timer of a neighbour is armed twice',
        source: '"NEIGH: BUG, double timer add", reports of 2005 and 2019',
        expected: ['data race', 'invariant'],
        kernel: true,
        story:
          'Two CPUs see that the timer of a neighbour is not pending; each takes a reference for it and arms it. It fires once, and one ' +
          'reference stays for ever. The fix holds the lock of the neighbour for look and arming.',
      },
      {
        number: '44',
        name: 'mq_notify',
        title: 'A retry drops the socket once more',
        source: 'CVE-2017-11176, f991af3daaba',
        expected: ['refcount'],
        story:
          'mq_notify looks up a netlink socket, drops it when its buffer is full, and tries again. When the descriptor was closed ' +
          'meanwhile the second look-up fails, and the error path drops the socket that it still has in its variable. The fix clears ' +
          'the variable.',
      },
      {
        number: '45',
        name: 'netlink_dump',
        title: 'Both ends of a netlink dump free its callback',
        source: 'CVE-2016-9806, 92964c79b357',
        expected: ['exception'],
        story:
          'A dump ends when its last part is read, and also when its socket is closed. Both look whether there is a callback, and both ' +
          'free it. With the fix only one can take it away.',
      },
      {
        number: '47',
        name: 'skb_freed_twice',
        title: 'A packet is queued, and freed by who queued it',
        source: 'CVE-2017-6074, 5edabca9d4cf; CVE-2023-53186, 0646dc31ca88',
        expected: ['exception', 'data race'],
        kernel: true,
        story:
          'DCCP keeps a request packet for its options, and its caller frees it as every packet that was dealt with. Our __kfree_skb ' +
          'finds it queued, or already free. The fix does not free what was handed on.',
      },
    ],
  },
  {
    title: 'RCU',
    bugs: [
      {
        number: '49',
        name: 'no_grace_period',
        title: 'Freed without a grace period',
        source: 'CVE-2026-72139, b74cd5503890',
        expected: ['rcu'],
        kernel: true,
        story:
          'A filter is unlinked and freed at once. A reader that fetched the pointer before reads freed memory: nothing orders its read ' +
          'and the poison of the slab. The fix is call_rcu.',
      },
      {
        number: '50',
        name: 'freed_then_unpublished',
        title: 'The free is queued before the pointer is taken away',
        source: 'CVE-2026-72435, 3ca9982a8882',
        expected: ['rcu'],
        kernel: true,
        story:
          'call_rcu comes first and the unlinking second. A reader that begins in between is of a time after the grace period began: ' +
          'nobody waits for it, and it still finds the pointer. The fix swaps the two lines.',
      },
      {
        number: '51',
        name: 'edited_in_place',
        title: 'A filter that readers see is edited where it lies',
        source: 'CVE-2023-1281, ee059170b1f7',
        expected: ['data race'],
        kernel: true,
        story:
          'An update writes the fields of a filter that is published. A reader sees some old and some new. The fix fills in a copy and ' +
          'publishes that; the old one goes after a grace period.',
      },
      {
        number: '58',
        name: 'rcu_flavour',
        title: 'Readers of one flavour, an updater of the other',
        source: 'the RCU checklist of the kernel; the route cache',
        expected: ['rcu'],
        kernel: true,
        story:
          'Readers use rcu_read_lock, the updater call_rcu_bh. For rcu_bh a CPU has passed when a soft interrupt ends, and that may be on ' +
          'top of such a reader. The route is freed under its eyes. The fix is call_rcu.',
      },
    ],
  },
]
