/**
 * The pages of docs/programs: one for each program, with its usage as the program itself says it, and with an example that is run.
 * `npx vitest run --project 'in turns' dist/test/e2e/programs.test.js -u` writes what the examples say now into the pages.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { readProfile } from '../../src/lab/profile.js'
import { runScenario } from '../../src/lab/scenario/run.js'
import { parseScenario } from '../../src/lab/scenario/schema.js'
import { summary } from '../../src/lab/scenario/summary.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')
const pages = join(root, 'docs/programs')
const names = readdirSync(pages)
  .map(f => f.replace('.md', ''))
  .sort()
const page = (name: string): string => readFileSync(join(pages, `${name}.md`), 'utf8')
const modern = readProfile('modern')

/** A block of a page, without its fences. */
const block = (text: string, language: string): string =>
  text.match(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\``, 'm'))![1]!
/** Times depend on the costs of the kernel's code, which change with it. */
const timeless = (text: string): string =>
  text.replaceAll(/\d+\.\d+(?= ?m?s\b)|\d\d:\d\d:\d\d\.\d+|(?<=rtt.*)\d+\.\d+|(?<=hash )[0-9a-f]+/g, '#')

/** softnet run, of what stands on a page. */
async function said(name: string): Promise<string> {
  const lines: string[] = []
  const result = await runScenario(parseScenario(block(page(name), 'yaml'), name), modern, {
    line: (host, text) => lines.push(`${host}: ${text}`.trimEnd()),
  })
  expect(result.programs.filter(p => !p.ok)).toEqual([])
  expect(result.hosts.flatMap(h => h.leaks)).toEqual([])
  return `${[...lines, summary(result)].join('\n')}\n`
}

test('each program has a page, and is in the list', () => {
  const registered = [
    ...readFileSync(join(root, 'src/user/programs.ts'), 'utf8').matchAll(/register_program\('(\w+)'/g),
  ]
  expect(registered.map(m => m[1]).sort()).toEqual(names)
  const list = readFileSync(join(root, 'docs/programs.md'), 'utf8')
  expect([...list.matchAll(/\(programs\/(\w+)\.md\)/g)].map(m => m[1]).sort()).toEqual(names)
})

test.each(names)('%s: the example says what its page says', async name => {
  const text = page(name)
  const old = block(text, 'console')
  const now = await said(name)
  const same = timeless(now) === timeless(old)
  await expect(text.replace(`console\n${old}`, () => `console\n${same ? old : now}`)).toMatchFileSnapshot(
    join(pages, `${name}.md`),
  )
})

test('the usage on a page is what the program says of itself', async () => {
  const silent = ['echo', 'ip'] // prints what it is given; has a help of its own
  const speaking = names.filter(n => !silent.includes(n))
  const code = (name: string): number => (name === 'tcpdump' ? 1 : 2) // as the original
  const wrong = speaking.map(n => `{ run: ${n} -Z, expect: ${code(n)} }`).join(', ')
  const text = `hosts: { a: { programs: [${wrong}] } }`
  const { programs } = await runScenario(parseScenario(text, 'usage'), modern)
  const usages = programs.map(p => [p.argv[0], p.exit, p.output.match(/usage: (.*)\n/)?.[1]])
  expect(usages).toEqual(speaking.map(n => [n, code(n), block(page(n), '').trimEnd()]))
})
