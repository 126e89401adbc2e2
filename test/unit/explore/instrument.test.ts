import { expect, test } from 'vitest'
import { instrument } from '../../../src/explore/instrument.js'
import { parseReplayId, replayId } from '../../../src/explore/replayId.js'

const G = '__softnet'

test.each([
  ['x = a[i]', `x = ${G}.get(a, i)`],
  ['x = a[i][j]', `x = ${G}.get(${G}.get(a, i), j)`],
  ['a[i] = v', `${G}.set(a, i, v)`],
  ['a[b[i]] = c[j]', `${G}.set(a, ${G}.get(b, i), ${G}.get(c, j))`],
  ['a[i] += v', `${G}.update(a, i, __o => __o + (v))`],
  ['a[i] >>>= b[j]', `${G}.update(a, i, __o => __o >>> (${G}.get(b, j)))`],
  ['a[i]++', `${G}.post(a, i, 1)`],
  ['--a[i]', `${G}.update(a, i, __o => --__o)`],
  ['(p, q)[i] = v', `${G}.set((p, q), i, v)`],
  ['x = a\n  [i]', `x = ${G}.get(a, \ni)`],
])('%s', (from, to) => {
  expect(instrument(from, 'module')).toBe(to)
})

test.each([
  'a[i](v)',
  'new a[i](v)',
  'delete a[i]',
  'a?.[i]',
  'a?.b[i]',
  '[a[i]] = v',
  'for (a[i] of v);',
  "a['name']",
  'a[i] ??= v',
  'a.b',
  'not javascript (',
])('%s stays as it is', source => {
  expect(instrument(source, 'module')).toBeNull()
})

test('what it writes does what was written', () => {
  const source = `
    const log = []; const a = [5, 6, 7]; let k = 0
    const next = () => k++
    log.push(a[next()], a[next()]++, ++a[next()], a[a[0] - 5] = 9, a[1] *= 2, [...a], (a, a)[0])
    function f() { return arguments[0] + this.x[1] }
    log.push(f.call({ x: [1, 2] }, 3), a?.[1], a.length)
    const o = { m: [() => 4] }; log.push(o['m'][0]())
    ;[a[0], a[1]] = [a[1], a[0]]; log.push(a.join())
    log.push(\`\${a[0]}\`, a[0] ? a[1] : a[2], typeof a[5], -a[0] ** 1 || 0)
    return JSON.stringify(log)`.replace('-a[0] ** 1', '(-a[0]) ** 1')
  const run = (text: string): unknown => new Function(G, text)(plain)
  const plain = {
    get: (o: Record<PropertyKey, unknown>, k: PropertyKey) => o[k],
    set: (o: Record<PropertyKey, unknown>, k: PropertyKey, v: unknown) => (o[k] = v),
    update: (o: Record<PropertyKey, unknown>, k: PropertyKey, f: (v: unknown) => unknown) => (o[k] = f(o[k])),
    post: (o: Record<PropertyKey, number>, k: PropertyKey, d: number) => (o[k] = o[k]! + d) - d,
  }
  const written = instrument(source, 'script')
  expect(written?.match(/__softnet/g)?.length).toBeGreaterThan(15)
  expect(run(written!)).toBe(run(source))
})

test('a replay id says whose each step was', () => {
  const steps = Array.from({ length: 300 }, (_, k) => ({ kind: 'load', where: `word ${k}` }))
  const executed = steps.map((_, k) => (k < 200 ? 3 : k % 2))
  const id = replayId(executed, steps)
  expect(parseReplayId(id)?.plan).toEqual(executed)
  expect(parseReplayId(id)?.checks[0]).toMatchObject({ step: 199 })
})

test.each(['', '2.AAAA', '1.$$', '1.AA', '1./w', '1.gICAgICA'])("'%s' is no replay id", text => {
  const got = parseReplayId(text)
  if (text === '1.') expect(got?.plan).toEqual([])
  else expect(got).toBeNull()
})
