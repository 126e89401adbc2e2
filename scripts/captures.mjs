/** captures.mjs - writes the captures of data/ anew: npm run build && node scripts/captures.mjs */
import { writeFileSync } from 'node:fs'
import { mixedFrames, pcapOf, steadyFrames } from '../dist/test/helpers/captures.js'

for (const [name, frames] of [
  ['mix', mixedFrames()],
  ['steady', steadyFrames()],
])
  writeFileSync(new URL(`../data/${name}.pcap`, import.meta.url), pcapOf(frames))
