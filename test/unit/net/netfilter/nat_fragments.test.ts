/**
 * Two hosts behind one address send datagrams in pieces with the same id to one server (RFC 3022, 6.3): the server cannot tell the
 * pieces apart. One kernel plays both parts: first it is the gateway, then the server that gets what the gateway has sent.
 */
import '../../../helpers/clock.js' // first: the kernel's clock is ours

import { expect, test } from 'vitest'
import { dev_get_by_name, dev_put } from '../../../../src/net/core/netdevice.js'
import { neigh_add_permanent } from '../../../../src/net/core/nud.js'
import { sysctl_write } from '../../../../src/net/core/sysctl.js'
import { inet_insert_ifa } from '../../../../src/net/ipv4/devinet.js'
import { delete_module, modules_loaded } from '../../../../src/sched/module.js'
import { udpechod_main } from '../../../../src/user/udpecho.js'
import { fragments, parse, udp, wrongChecksums } from '../../../helpers/frames.js'
import { runTask } from '../../../helpers/iptables.js'
import { INSIDE, NatGateway, OUTSIDE, SERVER } from '../../../helpers/natGateway.js'
import { start } from '../../../helpers/programs.js'
import { conserved } from '../../../helpers/script.js'
import { ip } from '../../../helpers/solo.js'

const SHARED = '192.0.2.10'
const SIZE = 4000
const s = new NatGateway()

/** A datagram of a host, all bytes of which are his number, as the gateway sends it on; `checked`: with a checksum. */
function through(host: number, checked: boolean): Uint8Array[] {
  const o = { src: `10.0.0.${host}`, dst: SERVER, sport: 5000, dport: 7, id: 77, protocol: 17 }
  const datagram = udp(o, new Uint8Array(SIZE).fill(host))
  if (!checked) datagram.fill(0, 6, 8)
  return fragments(datagram, o, 1500).flatMap(f => s.pass1(INSIDE, f).map(x => x.frame))
}
const key = (f: Uint8Array): string => {
  const p = parse(f)
  return `${p.src} ${p.dst} ${p.protocol} ${p.id}`
}
const keys = (...datagrams: Uint8Array[][]): number => new Set(datagrams.flat().map(key)).size

s.rules(`POSTROUTING -o eth1 -j SNAT --to-source ${SHARED}`)
const [a, b] = [2, 3].map(host => through(host, false))
const [checkedA, checkedB] = [2, 3].map(host => through(host, true))

test('as 2.6.11 does it, all pieces of both have the same source, destination, protocol and id', () => {
  expect([a!.length, b!.length, keys(a!, b!, checkedA!, checkedB!)]).toEqual([3, 3, 1])
  expect(a!.concat(b!).flatMap(f => (parse(f).ipChecksumGood ? [] : [f]))).toEqual([])
})

expect(sysctl_write('net.ipv4.netfilter.ip_nat_new_id', 1)).toBe(0)
const [ownA, ownB] = [2, 3].map(host => through(host, false))

test('with ids of the gateway’s own counter each datagram has its own, and pieces of one have the same', () => {
  expect([keys(ownA!), keys(ownB!), keys(ownA!, ownB!)]).toEqual([1, 1, 2])
  expect(ownA!.concat(ownB!).every(f => parse(f).ipChecksumGood)).toBe(true)
})

/** What the server's echo service answers: which hosts' bytes are in each datagram that it got. */
function answers(...frames: Uint8Array[]): string[] {
  const out: Uint8Array[] = []
  for (const f of frames) out.push(...s.pass1(OUTSIDE, f).map(x => x.frame))
  const whole: Record<number, number[]> = {}
  for (const p of out.map(f => parse(f)).filter(p => p.dst === SHARED)) {
    whole[p.id] ??= []
    whole[p.id]!.push(...p.payload.subarray(p.offset === 0 ? 8 : 0))
  }
  expect(out.flatMap(f => (parse(f).offset === 0 && !parse(f).mf ? wrongChecksums(f.subarray(14)) : []))).toEqual([])
  return Object.values(whole).map(bytes => [...new Set(bytes)].sort().join(' and '))
}

test('the server mixes them, where one piece is lost on the way', () => {
  s.rules()
  for (let k = 0; k < 4; k++) for (const name of modules_loaded()) runTask(s, () => delete_module(name))
  expect(modules_loaded()).toEqual([])
  // Now it is the server.
  const eth1 = dev_get_by_name('eth1')!
  inet_insert_ifa(eth1, ip(SERVER), 24)
  neigh_add_permanent(ip(SHARED), eth1, 0x02000000, 0x2ff)
  dev_put(eth1)
  start(() => udpechod_main(0, 0))
  s.pass(1)
  expect(answers(...a!, ...b!)).toEqual(['2', '3']) // nothing is lost: nobody notices
  expect(answers(...a!.slice(1), ...b!)).toEqual(['2 and 3'])
  s.pass(31_000) // what is left of both is given up
})

test('they are mixed, too, where a gateway of two CPUs sends them at the same time', () => {
  const both = a!.flatMap((f, k) => [f, b![k]!])
  expect(answers(...both)).toEqual(['2 and 3'])
  s.pass(31_000)
})

test('a checksum keeps the mixture from the service, and both datagrams are lost', () => {
  const f = s.account(() => expect(answers(...checkedA!.slice(1), ...checkedB!)).toEqual([]))
  expect(f.received).toBe(5)
  s.pass(31_000)
})

test('the gateway’s ids hold: what is whole arrives, what is not does not', () => {
  expect(answers(...ownA!.slice(1), ...ownB!)).toEqual(['3'])
  s.pass(31_000)
  expect(answers(...ownA!.flatMap((f, k) => [f, ownB![k]!])).sort()).toEqual(['2', '3'])
})

test('all is accounted for, and nothing leaks', () => {
  expect(conserved(s.fates())).toBe(true)
  expect(s.solo.audit()).toEqual([])
})
