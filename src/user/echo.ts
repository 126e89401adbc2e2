/** echo.ts - prints its arguments. */
import type { Libc } from './libc.js'
import { arguments_of, puts } from './stdio.js'

export function* echo_main(argc: number, argv: number): Libc {
  const err = yield* puts(arguments_of(argc, argv).slice(1).join(' '))
  return err < 0 ? 1 : 0
}
