/** positive.ts - a count on the command line. */
import { InvalidArgumentError } from 'commander'

export function positive(text: string): number {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || n < 1) throw new InvalidArgumentError('not a whole number above 0.')
  return n
}
