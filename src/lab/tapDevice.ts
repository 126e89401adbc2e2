/**
 * tapDevice.ts - TAP devices of the Linux host: an Ethernet whose other end is a file. System calls by koffi, which brings
 * its binaries along; it is loaded late, so that nobody else needs it.
 */
import { closeSync, constants, openSync } from 'node:fs'
import type { Wire } from '../hw/wire.js'
import { errnoText, RunError } from './errors.js'

const TUNSETIFF = 0x400454ca
const IFF_TAP = 0x0002
const IFF_NO_PI = 0x1000
const IFNAMSIZ = 16
const IFREQ = 40
const EPERM = 1
const EIO = 5
const EAGAIN = 11
const EBUSY = 16

interface Syscalls {
  ioctl(fd: number, request: number, arg: Uint8Array): number
  read(fd: number, buf: Uint8Array, n: number): number
  write(fd: number, buf: Uint8Array, n: number): number
  errno(): number
}

async function syscalls(): Promise<Syscalls> {
  if (process.platform !== 'linux') throw new RunError(`TAP devices are Linux's; this host is ${process.platform}`)
  let koffi: typeof import('koffi').default
  try {
    koffi = (await import('koffi')).default
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n')[0] : String(error)
    throw new RunError(`TAP devices need the package koffi, which cannot be loaded: ${why}`, { cause: error })
  }
  const libc = koffi.load(null)
  return {
    ioctl: libc.func('int ioctl(int fd, unsigned long request, void *arg)'),
    read: libc.func('long read(int fd, void *buf, size_t n)'),
    write: libc.func('long write(int fd, const void *buf, size_t n)'),
    errno: () => koffi.errno(),
  }
}

/** A TAP device that is open. */
export interface Tap {
  fd: number
  name: string
  close(): void
}

/** openTap - attach to a TAP device of this name, or make one that lives as long as it is open. Throws a RunError. */
export async function openTap(name: string): Promise<Tap> {
  const sys = await syscalls()
  let fd: number
  try {
    fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK)
  } catch (error) {
    throw new RunError(
      `/dev/net/tun: ${errnoText(error)} (TAP devices need the module tun, and in a container the device)`,
      { cause: error },
    )
  }
  const ifreq = Buffer.alloc(IFREQ)
  ifreq.write(name, 0, IFNAMSIZ - 1)
  ifreq.writeInt16LE(IFF_TAP | IFF_NO_PI, IFNAMSIZ)
  if (sys.ioctl(fd, TUNSETIFF, ifreq) < 0) {
    const errno = sys.errno()
    closeSync(fd)
    throw new RunError(`TAP device ${name}: ${complaint(name, errno)}`)
  }
  const real = ifreq.toString('latin1', 0, ifreq.indexOf(0))
  return { fd, name: real, close: () => closeSync(fd) }
}

function complaint(name: string, errno: number): string {
  if (errno === EPERM)
    return `not permitted: run as root, or let root make it for you once: ip tuntap add dev ${name} mode tap user ${process.env.USER ?? 'YOU'}`
  if (errno === EBUSY) return 'somebody else has it open'
  return `error ${errno}`
}

/** tapWire - the NIC's end of it. On the thread of the board. */
export async function tapWire(fd: number, frame: number): Promise<Wire> {
  const sys = await syscalls()
  const incoming = new Uint8Array(frame)
  const outgoing = new Uint8Array(frame)
  return {
    send(bytes, at, len) {
      if (len > frame) return false
      outgoing.set(bytes.subarray(at, at + len)) // koffi takes no shared memory
      return sys.write(fd, outgoing, len) === len
    },
    receive() {
      const n = sys.read(fd, incoming, frame)
      if (n > 0) return incoming.subarray(0, n)
      const errno = n < 0 ? sys.errno() : 0
      // While the device is down there is nothing to read, and that is no reason to end.
      if (n < 0 && errno !== EAGAIN && errno !== EIO) throw new Error(`TAP device: read: error ${errno}`)
      return null
    },
    next: () => Number.POSITIVE_INFINITY,
  }
}
