/** wat.mjs - compiles src/arch/lock.wat to src/arch/lock.wasm.ts; `--check` only says whether the two agree. */
import { readFileSync, writeFileSync } from 'node:fs'
import wabtInit from 'wabt'

const wat = new URL('../src/arch/lock.wat', import.meta.url)
const out = new URL('../src/arch/lock.wasm.ts', import.meta.url)
const wabt = await wabtInit()
const module = wabt.parseWat('lock.wat', readFileSync(wat, 'utf8'), { threads: true })
const base64 = Buffer.from(module.toBinary({}).buffer).toString('base64')
const lines = base64.match(/.{1,100}/g).map(s => `  '${s}'`)
const text = `/** lock.wasm.ts - lock.wat compiled by scripts/wat.mjs; do not edit. */
export const LOCK_WASM =
${lines.join(' +\n')}
`
if (process.argv.includes('--check')) {
  if (readFileSync(out, 'utf8') !== text) {
    console.error('src/arch/lock.wasm.ts does not match lock.wat: run node scripts/wat.mjs')
    process.exit(1)
  }
} else writeFileSync(out, text)
