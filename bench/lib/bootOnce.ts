/** bootOnce.ts - a process that boots 4 CPUs and a NIC, forwards a packet, and prints how long it took and what it holds. */
import { performance } from 'node:perf_hooks'
import { livelockMachine } from '../../src/lab/bench2544.js'
import { livelockDefaults } from '../../src/lab/config.js'
import { Machine, sleep } from '../../src/lab/machine.js'

const from = performance.now()
const machine = new Machine({ ...livelockMachine({ ...livelockDefaults(), cpus: 4 }, 'napi'), userSpin: false })
await machine.powerOn()
const on = performance.now()
await machine.source(0, { on: true, rate: 20_000 })
while (machine.ram.port(1).sent === 0) await sleep(0)
const forwarded = performance.now()
await sleep(200)
const rss = process.memoryUsage.rss()
await machine.destroy()
process.stdout.write(JSON.stringify({ ms: forwarded - from, power_on_ms: on - from, rss_mib: rss / 2 ** 20 }))
