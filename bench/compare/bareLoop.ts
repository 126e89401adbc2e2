/**
 * bareLoop.ts - forwarding as a bare JavaScript loop: the limit of the language, against which the kernel is held.
 *
 * A receive ring of descriptors that point at 64-byte frames in shared memory; for each: is it filled, is it for us, is
 * it IPv4, header with its lengths and checksum, route cache by destination, source and TOS (behind it 33 hash zones
 * with 10,000 routes), TTL with the checksum updated incrementally, new MAC addresses, descriptor into the transmit
 * ring, receive descriptor given back. No buffers are allocated, nothing is queued,
 * nobody is notified, no counter but one: everything that makes a kernel is left out. On request a packet also takes
 * and releases one to four locks by Atomics, and goes without the route cache.
 */
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { makeDestinations, makeRoutes, type Route } from '../lib/routes.js'

export interface BareLoopConfig {
  destinations: number
  routes: number
  /** lock pairs per packet, by Atomics.compareExchange and Atomics.store */
  locks: 0 | 2 | 4
  cache: boolean
}
export interface BareLoopResult extends BareLoopConfig {
  ns: number
  mpps: number
}

const memory = new WebAssembly.Memory({ initial: 64, maximum: 64, shared: true })
const i32 = new Int32Array(memory.buffer)
const view = new DataView(memory.buffer)

// byte addresses; a frame starts 2 bytes into its slot, so that its IP header is aligned
const LOCKS = 4096 // four words on lines of their own
const RX = 8192 // descriptors { address, length, filled, - }
const TX = RX + 4096 * 16
const FRAMES = TX + 4096 * 16
const SLOT = 128
const CACHE = FRAMES + 4096 * SLOT // { destination, source, TOS, interface, MAC high, MAC low, -, - }, 16,384 of them
const CACHE_MASK = 16383
const ZONES = CACHE + (CACHE_MASK + 1) * 32 // 33 of { buckets, mask, netmask, used }
const HEAP = ZONES + 33 * 16 // buckets, then nodes { next, prefix, interface, gateway }
const RING = 4096
const OUR_MAC_HIGH = 0x02000000
const OUR_MAC_LOW = 0x0002

let heap = HEAP

function buildZone(len: number, routes: readonly Route[]): void {
  const mine = routes.filter(r => r.len === len)
  const zone = (ZONES + len * 16) >> 2
  i32[zone + 3] = mine.length
  if (mine.length === 0) return
  let buckets = 16
  while (buckets < mine.length) buckets *= 2
  i32[zone] = heap
  i32[zone + 1] = buckets - 1
  i32[zone + 2] = len === 0 ? 0 : -1 << (32 - len)
  heap += buckets * 4
  for (const r of mine) {
    const bucket = (i32[zone] >> 2) + (hash(r.prefix >>> (32 - len)) & (buckets - 1))
    const node = heap >> 2
    heap += 16
    i32[node] = i32[bucket]
    i32[node + 1] = r.prefix
    i32[node + 2] = 2
    i32[node + 3] = 0x0a000001
    i32[bucket] = node << 2
  }
}

function hash(key: number): number {
  const h = Math.imul(key, 0x9e3779b1)
  return h ^ (h >>> 15)
}

/** fib_lookup over the zones, longest prefix first. Returns the route's node or 0. */
function lookup(dst: number): number {
  for (let len = 32; len >= 0; len--) {
    const zone = (ZONES + len * 16) >> 2
    if (i32[zone + 3] === 0) continue
    const key = dst & i32[zone + 2]
    let node = i32[(i32[zone] >> 2) + (hash(key >>> (32 - len)) & i32[zone + 1])]
    while (node !== 0) {
      if (i32[(node >> 2) + 1] === key) return node
      node = i32[node >> 2]
    }
  }
  return 0
}

/** routeSlow - looks the destination up and fills its line of the route cache. */
function routeSlow(dst: number, src: number, tos: number, line: number): boolean {
  const node = lookup(dst)
  if (node === 0) return false
  i32[line] = dst
  i32[line + 1] = src
  i32[line + 2] = tos
  i32[line + 3] = i32[(node >> 2) + 2]
  i32[line + 4] = OUR_MAC_HIGH // the next hop bears our own address, so that a frame can go round again
  i32[line + 5] = OUR_MAC_LOW
  return true
}

function headerSum(ip: number): number {
  let s = 0
  for (let p = ip >> 2, end = p + 5; p < end; p++) s += (i32[p] & 0xffff) + (i32[p] >>> 16)
  s = (s & 0xffff) + (s >>> 16)
  return (s & 0xffff) + (s >>> 16)
}

/** acceptable - whether the frame is one for us that holds a sound IPv4 header without options. */
function acceptable(frame: number, length: number): boolean {
  const ip = frame + 14
  if (length < 34 || view.getInt32(frame) !== OUR_MAC_HIGH || view.getUint16(frame + 4) !== OUR_MAC_LOW) return false
  if (view.getUint16(frame + 12) !== 0x0800 || view.getUint8(ip) !== 0x45) return false
  const total = view.getUint16(ip + 2)
  return total >= 20 && total <= length - 14 && headerSum(ip) === 0xffff
}

/** forwardOne - routes and rewrites one sound frame. Returns the interface it goes out of, 0 if it is dropped. */
function forwardOne(frame: number, cache: boolean): number {
  const ip = frame + 14
  const src = view.getInt32(ip + 12)
  const dst = view.getInt32(ip + 16)
  const tos = view.getUint8(ip + 1)
  const line = (CACHE >> 2) + (hash(dst ^ src ^ tos) & CACHE_MASK) * 8
  const ttl = view.getUint8(ip + 8)
  if (ttl <= 1) return 0
  const hit = cache && i32[line] === dst && i32[line + 1] === src && i32[line + 2] === tos
  if (!hit && !routeSlow(dst, src, tos, line)) return 0
  const check = view.getUint16(ip + 10) + 0x0100
  view.setUint16(ip + 10, check >= 0xffff ? check + 1 : check)
  view.setUint8(ip + 8, ttl - 1)
  view.setInt32(frame, i32[line + 4])
  view.setUint16(frame + 4, i32[line + 5])
  view.setInt32(frame + 6, OUR_MAC_HIGH)
  view.setUint16(frame + 10, OUR_MAC_LOW)
  return i32[line + 3]
}

/** forwardRing - forwards the whole ring once. Returns how many frames went out. */
function forwardRing(locks: number, cache: boolean): number {
  let out = 0
  for (let n = 0; n < RING; n++) {
    const rx = (RX >> 2) + n * 4
    if (i32[rx + 2] === 0) continue
    for (let l = 0; l < locks; l++) Atomics.compareExchange(i32, (LOCKS >> 2) + l * 32, 0, 1)
    const frame = i32[rx]
    const length = i32[rx + 1]
    const oif = acceptable(frame, length) ? forwardOne(frame, cache) : 0
    if (oif !== 0) {
      const tx = (TX >> 2) + out++ * 4
      i32[tx] = frame
      i32[tx + 1] = length
      i32[tx + 2] = 1
      i32[tx + 3] = oif
    }
    i32[rx + 2] = 1 // the source of this loop is always at once ready with the next frame
    for (let l = 0; l < locks; l++) Atomics.store(i32, (LOCKS >> 2) + l * 32, 0)
  }
  return out
}

function fillRing(destinations: readonly number[]): void {
  for (let n = 0; n < RING; n++) {
    const frame = FRAMES + n * SLOT + 2
    const ip = frame + 14
    const rx = (RX >> 2) + n * 4
    i32[rx] = frame
    i32[rx + 1] = 64
    i32[rx + 2] = 1
    view.setInt32(frame, OUR_MAC_HIGH)
    view.setUint16(frame + 4, OUR_MAC_LOW)
    view.setUint16(frame + 12, 0x0800)
    view.setUint16(ip, 0x4500)
    view.setUint16(ip + 2, 50)
    view.setUint16(ip + 8, 0xff11)
    view.setUint16(ip + 10, 0)
    view.setUint32(ip + 12, 0xc6120002)
    view.setUint32(ip + 16, destinations[n % destinations.length])
    let s = 0
    for (let i = 0; i < 20; i += 2) s += view.getUint16(ip + i)
    s = (s & 0xffff) + (s >>> 16)
    view.setUint16(ip + 10, ~((s & 0xffff) + (s >>> 16)))
  }
}

/** runHere - one configuration in this thread: the best of several runs of a good quarter second each. */
function runHere(config: BareLoopConfig, seconds: number, seed: number): BareLoopResult {
  const routes = makeRoutes(config.routes, seed)
  heap = HEAP
  i32.fill(0, LOCKS >> 2)
  for (let len = 0; len <= 32; len++) buildZone(len, routes)
  const destinations = makeDestinations(config.destinations, routes, seed + 1)
  let best = Infinity
  for (let round = 0; round < 4; round++) {
    let [spent, packets] = [0, 0]
    while (spent < (seconds * 1000) / 4) {
      fillRing(destinations) // 200 rounds take the TTL from 255 to 55
      const t = performance.now()
      for (let i = 0; i < 200; i++) packets += forwardRing(config.locks, config.cache)
      spent += performance.now() - t
    }
    if (packets % (200 * RING) !== 0) throw new Error('bare loop: frames were not forwarded')
    if (round > 0) best = Math.min(best, (spent * 1e6) / packets)
  }
  return { ...config, ns: best, mpps: 1000 / best }
}

export const BARE_LOOPS: readonly BareLoopConfig[] = [
  { destinations: 1, routes: 10_000, locks: 0, cache: true },
  { destinations: 4096, routes: 10_000, locks: 0, cache: true },
  { destinations: 4096, routes: 10_000, locks: 2, cache: true },
  { destinations: 4096, routes: 10_000, locks: 4, cache: true },
  { destinations: 4096, routes: 10_000, locks: 4, cache: false },
]

/** measureBareLoop - each configuration in a worker of its own, so that no one's types colour another's code. */
export async function measureBareLoop(configs = BARE_LOOPS, seconds = 1, seed = 1): Promise<BareLoopResult[]> {
  const results: BareLoopResult[] = []
  for (const config of configs)
    results.push(
      await new Promise<BareLoopResult>((resolve, reject) => {
        const w = new Worker(fileURLToPath(import.meta.url), { workerData: { bareLoop: config, seconds, seed } })
        w.once('message', resolve)
        w.once('error', reject)
      }),
    )
  return results
}

const job = workerData as { bareLoop?: BareLoopConfig; seconds: number; seed: number } | null
if (!isMainThread && job?.bareLoop !== undefined) parentPort?.postMessage(runHere(job.bareLoop, job.seconds, job.seed))
else if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const r of await measureBareLoop()) console.log(JSON.stringify(r))
