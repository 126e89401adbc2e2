/** races.ts - of the zoo's list: check and then act, double fetch, teardown against use. */
import type { Chapter } from './index.js'

export const RACES: readonly Chapter[] = [
  {
    title: 'Check then act, double fetch, teardown against use',
    bugs: [
      {
        number: '22',
        name: 'ring_version',
        title: 'The version of a packet ring changes while the ring is set up',
        source: 'CVE-2016-8655, 84ac7260236a',
        expected: ['invariant'],
        story:
          'setsockopt(PACKET_VERSION) checks that there is no ring, and changes the version. Between the two a ring of version 3 is ' +
          'set up, with a timer. When it goes, its version says that there is no timer to stop. The fix takes the lock of the socket ' +
          'for check and change.',
      },
      {
        number: '23',
        name: 'fanout_join',
        title: 'Two threads add one socket to a fanout group',
        source: 'CVE-2017-6346, d199fab63c11',
        expected: ['invariant'],
        story:
          'Whether the socket has a group is asked before the mutex is taken. Two threads both hear no, and both add it. It will leave ' +
          'once, and the group keeps a pointer to a socket that is freed. The fix asks under the mutex.',
      },
      {
        number: '25',
        name: 'tp_reserve',
        title: 'tp_reserve changes after the size was computed with it',
        source: 'CVE-2017-1000111, c27927e372f0',
        expected: ['exception'],
        story:
          'A packet ring is checked to hold a header and tp_reserve bytes. setsockopt, which has seen no ring yet, then sets a greater ' +
          'one, and the next packet is written behind its block. The fix locks the socket.',
      },
      {
        number: '26',
        name: 'hdrincl',
        title: 'Whether the user brings the header is read twice',
        source: 'CVE-2017-17712, 8f659a03a0ba',
        expected: ['exception'],
        story:
          'raw_sendmsg sets up a vector when the user brings no header, and uses it when the user brings no header. It reads the option ' +
          'twice, and another thread changes it in between: the vector is used and was never set. The fix reads once.',
      },
      {
        number: '27',
        name: 'zapped_bind',
        title: 'SOCK_ZAPPED tested before the socket is locked',
        source: 'CVE-2016-10200, 32c231164b76',
        expected: ['exception'],
        story:
          'bind of an L2TP socket refuses one that is bound, but looks before it has the lock. Two threads both pass, and the second ' +
          'one links what is linked already. The fix looks under the lock.',
      },
      {
        number: '29',
        name: 'setattr_release',
        title: 'fchown of a socket that is being closed',
        source: 'CVE-2018-12232, 6d8c50dcb029',
        expected: ['exception'],
        story:
          'sockfs_setattr looks whether the socket still has its struct sock and then follows the pointer. Its release clears the ' +
          'pointer without the lock of the inode. The fix takes that lock.',
      },
      {
        number: '31',
        name: 'udp_rehash',
        title: 'A lookup misses a UDP socket that changes its chain',
        source: 'CVE-2024-57974, a502ea6fa94b',
        expected: ['exception'],
        story:
          'When a bound socket connects it moves from the chain of the wildcard address to that of its own. A lookup that comes too ' +
          'early for the new chain and too late for the old one finds nothing, though the socket is bound all the time. The fix asks ' +
          'the table by port before it gives up.',
      },
      {
        number: '32',
        name: 'backlog_flush',
        title: 'A packet is queued after the queue was flushed',
        source: 'CVE-2026-72493, 46762cefe7f4',
        expected: ['invariant'],
        kernel: true,
        story:
          'Whether the device runs is tested before the lock of the backlog is taken. Between the two the device goes down and the ' +
          'backlog is flushed. The packet outlives its device. The fix tests under the lock.',
      },
      {
        number: '35',
        name: 'forward_alloc',
        title: 'sk_forward_alloc updated without the lock of the socket',
        source: 'CVE-2024-53124, 073d89808c06',
        expected: ['data race', 'invariant'],
        story:
          'The account of a socket is a plain word under the lock of the socket. One path returns memory without that lock, and one of ' +
          'two changes is lost. The fix takes the lock.',
      },
    ],
  },
]
