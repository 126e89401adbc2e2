/** progress.ts - a progress bar on a terminal, nothing in a pipe. */
import type { ProgressHook } from './types.js'

export interface Progress {
  update: NonNullable<ProgressHook['progress']>
  /** One line on stderr, above the bar. */
  notice(line: string): void
  /** Takes the bar away. */
  stop(): void
}

/** startProgress - a bar on stderr when that is a terminal. */
export async function startProgress(): Promise<Progress> {
  const say = (line: string): void => void process.stderr.write(`softnet: ${line}\n`)
  if (!process.stderr.isTTY) return { update: () => {}, notice: say, stop: () => {} }
  const { Presets, SingleBar } = await import('cli-progress') // late: most runs need no bar
  const bar = new SingleBar(
    {
      format: ' {bar} {percentage} % | {duration_formatted} | {label}',
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      barsize: 30,
      // A Ctrl-C ends the run in an orderly way, which also stops the bar.
      gracefulExit: false,
      emptyOnZero: true,
    },
    Presets.shades_classic,
  )
  bar.start(1, 0, { label: 'starting' })
  return {
    update: (done, total, label) => {
      bar.setTotal(Math.max(1, total))
      bar.update(Math.min(done, total), { label })
    },
    notice: line => {
      process.stderr.write('\r\x1b[K')
      say(line)
    },
    stop: () => bar.stop(),
  }
}
