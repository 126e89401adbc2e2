/** progress.ts - a progress bar on a terminal, nothing in a pipe. */
import { Presets, SingleBar } from 'cli-progress'
import type { ProgressHook } from './types.js'

export interface Progress {
  update: NonNullable<ProgressHook['progress']>
  /** Takes the bar away. */
  stop(): void
}

/** startProgress - a bar on stderr when that is a terminal. */
export function startProgress(): Progress {
  if (!process.stderr.isTTY) return { update: () => {}, stop: () => {} }
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
    stop: () => bar.stop(),
  }
}
