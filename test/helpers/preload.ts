/** preload.ts - for `node --import`: every machine of the command line also loads a scenario, and is told how it ends. */
import { isMainThread } from 'node:worker_threads'

const { SOFTNET_TEST_SCENARIO: scenario, SOFTNET_TEST_HOW: how } = process.env

if (isMainThread && scenario !== undefined) {
  const { Machine } = await import('../../src/lab/machine.js')
  const load = Machine.prototype.load
  Machine.prototype.load = async function (): Promise<void> {
    this.config.programs = [new URL(`../torture/scenarios/${scenario}.js`, import.meta.url).href]
    await load.call(this)
    this.ram.i32[this.ram.address(`test_${scenario}`, 'how') >> 2] = Number(how)
  }
}
