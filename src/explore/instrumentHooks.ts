/** instrumentHooks.ts - the loader's hooks for hosts that run them on a thread of their own (before Node 22.15). */
import { instrumented } from './instrument.js'

type Result = Parameters<typeof instrumented>[1]

export async function load(
  url: string,
  context: object,
  next: (url: string, context: object) => Promise<Result>,
): Promise<Result> {
  return instrumented(url, await next(url, context))
}
