#!/usr/bin/env node
/** softnet.mjs - the command: checks that it can run here, then hands over to the compiled lab. */
import { existsSync } from 'node:fs'

const [major, minor] = process.versions.node.split('.').map(Number)
const entry = new URL('../dist/src/lab/cli.js', import.meta.url)

if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`softnet: needs Node 20.19 or newer, this is ${process.versions.node}`)
  process.exitCode = 2
} else if (!existsSync(entry)) {
  console.error('softnet: not built yet (dist is missing): run "npm start", or "npm run build" first')
  process.exitCode = 2
} else {
  const { main } = await import(entry.href)
  process.exitCode = await main(process.argv.slice(2))
}
