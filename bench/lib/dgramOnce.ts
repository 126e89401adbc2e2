/** dgramOnce.ts - a process that sends datagrams to itself over the host's loopback by node:dgram, and prints how many a second. */
import { createSocket } from 'node:dgram'
import { performance } from 'node:perf_hooks'

const [size = 0, batch = 0, seconds = 0] = process.argv.slice(2).map(Number)
const message = Buffer.alloc(size, 0x5a)
const into = createSocket('udp4')
const out = createSocket('udp4')
const seen = { n: 0, sent: 0 }

function more(): void {
  while (seen.sent - seen.n < batch) {
    seen.sent++
    out.send(message)
  }
}
into.on('message', () => {
  if (++seen.n === seen.sent) more()
})
into.bind(0, '127.0.0.1', () => {
  out.connect(into.address().port, '127.0.0.1', () => {
    more()
    setTimeout(() => {
      const [begin, before] = [performance.now(), seen.n]
      setTimeout(() => {
        process.stdout.write(
          JSON.stringify({ per_second: ((seen.n - before) * 1000) / (performance.now() - begin) }),
          () => process.exit(),
        )
      }, seconds * 1000)
    }, 1000)
  })
})
