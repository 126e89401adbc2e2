/** plainTable.ts - a table without lines: the first column to the left, figures to the right. */
import Table from 'cli-table3'

const BARE = Object.fromEntries(
  ['top', 'bottom', 'mid', 'left', 'right'].flatMap(k => [k, `${k}-mid`, `${k}-left`, `${k}-right`]).map(k => [k, '']),
)

/** plainTable - rows of as many cells as the head has. */
export function plainTable(head: readonly string[], rows: readonly string[][]): string {
  const table = new Table({
    head: [...head],
    style: { head: [], border: [], compact: true },
    colAligns: ['left', ...head.slice(1).map(() => 'right' as const)],
    chars: { ...BARE, middle: ' ', 'left-mid': '', 'right-mid': '', 'mid-mid': '' },
  })
  table.push(...rows)
  return table.toString()
}
