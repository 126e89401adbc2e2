/** Each bug of the zoo is found, by a detector that names it rightly; in its fixed twin nothing is. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { explore } from '../../src/explore/index.js'
import { type Bug, CHAPTERS, MEGABYTES, scenarioOf, ZOO } from '../../src/zoo/index.js'

const SCHEDULES = 1000
const TWIN_SCHEDULES = 400
const named = ZOO.map(bug => [`${bug.number} ${bug.name}`, bug] as const)

const run = (bug: Bug, args: 'buggy' | 'fixed', schedules: number) =>
  explore(scenarioOf(bug), {
    args,
    schedules,
    throws: false,
    kernel: bug.kernel === true ? { megabytes: MEGABYTES } : undefined,
  })

test.each(named)('%s is found', async (_, bug) => {
  const { findings } = await run(bug, 'buggy', SCHEDULES)
  expect(findings).toHaveLength(1)
  expect(bug.expected).toContain(findings[0]!.detector)
  expect(findings[0]!.preemptions).toBeLessThanOrEqual(3)
})

test.each(named)('%s: nothing in its fixed twin', async (_, bug) => {
  const result = await run(bug, 'fixed', TWIN_SCHEDULES)
  expect(result).toMatchObject({ findings: [], cut: 0, schedules: TWIN_SCHEDULES })
})

test.each(['no_grace_period', 'freed_then_unpublished', 'edited_in_place', 'rcu_flavour'])(
  '%s: the fixed twin does free, after its grace period',
  async name => {
    const { outcomes } = await run(ZOO.find(bug => bug.name === name)!, 'fixed', 200)
    const left = name === 'edited_in_place' ? 1 : 0
    expect(outcomes[`${left} left`]).toBeGreaterThan(0)
  },
)

describe('the list', () => {
  test('has at least 24 bugs, 8 of them on the kernel itself, and names none twice', () => {
    expect(ZOO.length).toBeGreaterThanOrEqual(24)
    expect(ZOO.filter(bug => bug.kernel === true).length).toBeGreaterThanOrEqual(8)
    expect(new Set(ZOO.map(bug => bug.number)).size).toBe(ZOO.length)
    expect(new Set(ZOO.map(bug => bug.name)).size).toBe(ZOO.length)
  })

  test('has each scenario, and each scenario is in it', () => {
    expect(ZOO.filter(bug => !existsSync(scenarioOf(bug)))).toEqual([])
    const files = readdirSync(new URL('.', scenarioOf(ZOO[0]!))).filter(f => f.endsWith('.js'))
    expect(files.sort()).toEqual(ZOO.map(bug => `${bug.name}.js`).sort())
  })

  test('is told in docs/zoo.md', () => {
    const page = readFileSync(fileURLToPath(new URL('../../../docs/zoo.md', import.meta.url)), 'utf8')
    for (const chapter of CHAPTERS) expect(page).toContain(`## ${chapter.title}\n`)
    for (const bug of ZOO) expect(page).toContain(storyOf(bug))
  })
})

/** As it stands on the page. */
function storyOf({ number, name, title, source, kernel, story }: Bug): string {
  const where = kernel === true ? `\`${name}\`, on the kernel's own modules` : `\`${name}\``
  return `**${number}. ${title}** (${where}). ${story} Seen in: ${source}.\n`
}
