/** routes.ts - the routing table and the destinations that every forwarding measure uses, so that rivals do equal work. */

export interface Route {
  prefix: number // host order, unsigned
  len: number
}

/** prefix lengths of the table, roughly as in the Internet's: weight per thousand */
const LENGTHS: readonly (readonly [number, number])[] = [
  [24, 600],
  [23, 90],
  [22, 110],
  [21, 50],
  [20, 45],
  [19, 30],
  [18, 20],
  [17, 10],
  [16, 35],
  [28, 5],
  [32, 5],
]

/** mulberry - a small seeded generator; the same sequence on every host. */
export function mulberry(seed: number): () => number {
  let a = seed | 0
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

function pickLength(r: number): number {
  let at = r * 1000
  for (const [len, weight] of LENGTHS) {
    at -= weight
    if (at < 0) return len
  }
  return 24
}

/** makeRoutes - `n` different prefixes within 20.0.0.0 - 99.255.255.255, away from every special range. */
export function makeRoutes(n: number, seed = 1): Route[] {
  const random = mulberry(seed)
  const seen = new Set<number>()
  const routes: Route[] = []
  while (routes.length < n) {
    const len = pickLength(random())
    const address = (((20 + Math.floor(random() * 80)) << 24) | Math.floor(random() * 0x1000000)) >>> 0
    const prefix = (len === 32 ? address : address & ~(0xffffffff >>> len)) >>> 0
    const key = prefix * 64 + len
    if (seen.has(key)) continue
    seen.add(key)
    routes.push({ prefix, len })
  }
  return routes
}

/** makeDestinations - `n` different host addresses, each within one of the routes. */
export function makeDestinations(n: number, routes: readonly Route[], seed = 2): number[] {
  const random = mulberry(seed)
  const seen = new Set<number>()
  while (seen.size < n) {
    const r = routes[Math.floor(random() * routes.length)]
    const host = r.len === 32 ? 0 : 1 + Math.floor(random() * (2 ** (32 - r.len) - 2))
    seen.add((r.prefix + host) >>> 0)
  }
  return [...seen]
}

export function dotted(a: number): string {
  return `${a >>> 24}.${(a >>> 16) & 255}.${(a >>> 8) & 255}.${a & 255}`
}
