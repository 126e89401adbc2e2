/** Sends numbered datagrams to an echo service, a few on their way at a time, and looks at every byte that comes back. */
import { createSocket } from 'node:dgram'

const [host = '', port = '', count = ''] = process.argv.slice(2)
const total = Number(count)
const WINDOW = 32
const socket = createSocket('udp4')
const said = { sent: 0, right: 0, wrong: 0 }

/** Datagram `k`: its number, then bytes that follow from it; up to 600. */
function datagram(k: number): Buffer {
  const d = Buffer.alloc(4 + ((k * 37) % 597))
  d.writeUInt32BE(k)
  for (let at = 4; at < d.length; at++) d[at] = (k * 31 + at * 7) & 255
  return d
}
function more(): void {
  while (said.sent < total && said.sent - said.right - said.wrong < WINDOW) socket.send(datagram(said.sent++))
}
function end(): void {
  process.stdout.write(JSON.stringify(said))
  socket.close()
}
// A datagram that is lost stops the window: this ends it.
const last = setTimeout(end, 5000)
socket.on('message', d => {
  last.refresh()
  if (d.length >= 4 && d.equals(datagram(d.readUInt32BE()))) said.right++
  else said.wrong++
  if (said.right + said.wrong === total) {
    clearTimeout(last)
    end()
  } else more()
})
socket.connect(Number(port), host, more)
