/**
 * pcap.ts - classic capture files, both byte orders and both resolutions, Ethernet.
 *
 * Errors are UsageErrors of one line that name the file and what is wrong with it.
 */
import type { CapturedFrames } from '../hw/types.js'
import { UsageError } from './errors.js'
import { readInput } from './input.js'

const LINKTYPE_ETHERNET = 1
const MAX_FRAME = 262_144
const LINK_NAMES: Record<number, string> = {
  0: 'BSD loopback',
  9: 'PPP',
  101: 'raw IP',
  105: '802.11',
  113: 'Linux cooked',
  127: '802.11 radiotap',
  228: 'raw IPv4',
  229: 'raw IPv6',
  276: 'Linux cooked v2',
}

export interface Capture {
  /** All frames one after the other. */
  data: Uint8Array
  /** Of each frame: where it begins, and its captured bytes. */
  offsets: Uint32Array
  lengths: Uint32Array
  /** ns since the first frame */
  times: Float64Array
  /** When that was, ns since the epoch; null when there is none. */
  start: bigint | null
  /** Frames of which the capture holds only the beginning. */
  cut: number
}

/** readPcap - a whole capture file. */
export async function readPcap(file: string, signal?: AbortSignal): Promise<Capture> {
  return parsePcap(await readInput(file, signal), file)
}

/** What a file header says: byte order, ns of a unit of the fraction, and bytes of check sequence behind each frame. */
interface Header {
  little: boolean
  unit: number
  fcs: number
}

/** The upper half of the link-type word may say how long the check sequence is: in pairs of bytes, or by newer drafts in bytes. */
function checkSequence(word: number): number {
  if ((word & 0x0400_0000) !== 0) return (word >>> 28) * 2
  return (word & 0x1000_0000) !== 0 ? word >>> 29 : 0
}

function header(view: DataView, file: string): Header {
  if (view.byteLength < 4) throw new UsageError(`${file}: not a capture: ${view.byteLength} bytes long`)
  const magic = view.getUint32(0)
  if (magic === 0x0a0d0d0a)
    throw new UsageError(`${file}: is a pcapng file; convert it with: editcap -F pcap ${file} out.pcap`)
  const known: Record<number, { little: boolean; unit: number }> = {
    2712847316: { little: false, unit: 1000 },
    3569595041: { little: true, unit: 1000 },
    2712812621: { little: false, unit: 1 },
    1295823521: { little: true, unit: 1 },
  }
  const kind = known[magic]
  if (kind === undefined)
    throw new UsageError(`${file}: not a pcap capture (magic 0x${magic.toString(16).padStart(8, '0')})`)
  if (view.byteLength < 24) throw new UsageError(`${file}: truncated in its file header`)
  const word = view.getUint32(20, kind.little)
  const link = word & 0xffff
  if (link !== LINKTYPE_ETHERNET)
    throw new UsageError(
      `${file}: link type ${link}${LINK_NAMES[link] === undefined ? '' : ` (${LINK_NAMES[link]})`}, only Ethernet (1) can be used`,
    )
  return { ...kind, fcs: checkSequence(word) }
}

/** parsePcap - the same from bytes; `name` is for errors. */
export function parsePcap(bytes: Uint8Array, name: string): Capture {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const { little, unit, fcs } = header(view, name)
  const starts: number[] = []
  const lengths: number[] = []
  const times: number[] = []
  let cut = 0
  let first: bigint | null = null
  let total = 0
  for (let at = 24; at < bytes.length; ) {
    const where = `${name}: packet ${starts.length + 1}`
    if (at + 16 > bytes.length) throw new UsageError(`${where}: truncated in its record header`)
    const len = view.getUint32(at + 8, little)
    if (len > MAX_FRAME) throw new UsageError(`${where}: corrupt, says it is ${len} bytes long`)
    if (at + 16 + len > bytes.length)
      throw new UsageError(`${where}: truncated, ${at + 16 + len - bytes.length} bytes are missing`)
    const ns = BigInt(view.getUint32(at, little)) * 1_000_000_000n + BigInt(view.getUint32(at + 4, little) * unit)
    first ??= ns
    const missing = Math.max(0, view.getUint32(at + 12, little) - len)
    if (missing > fcs) cut++
    const kept = Math.max(0, len - Math.max(0, fcs - missing))
    starts.push(at + 16)
    lengths.push(kept)
    times.push(Math.max(0, Number(ns - first)))
    total += kept
    at += 16 + len
  }
  return { ...pack(bytes, starts, lengths, times, total), start: first, cut }
}

function pack(
  bytes: Uint8Array,
  starts: number[],
  lengths: number[],
  times: number[],
  total: number,
): Omit<Capture, 'start' | 'cut'> {
  const data = new Uint8Array(new SharedArrayBuffer(total))
  const offsets = new Uint32Array(starts.length)
  let to = 0
  starts.forEach((start, k) => {
    offsets[k] = to
    data.set(bytes.subarray(start, start + lengths[k]!), to)
    to += lengths[k]!
  })
  return { data, offsets, lengths: Uint32Array.from(lengths), times: Float64Array.from(times) }
}

/** cutNotice - one line on frames that a capture holds only in part, or null. */
export function cutNotice({ cut, offsets }: Capture, name: string): string | null {
  return cut === 0 ? null : `${name}: ${cut} of ${offsets.length} frames hold only their beginning`
}

const CHUNK = 1 << 16

/** PcapWriter - a capture in nanosecond resolution, written to `sink` in chunks. */
export class PcapWriter {
  private chunk = new Uint8Array(CHUNK)
  private used = 0

  constructor(private readonly sink: (bytes: Uint8Array) => void) {
    const head = new DataView(this.chunk.buffer)
    head.setUint32(0, 0xa1b23c4d, true)
    head.setUint16(4, 2, true)
    head.setUint16(6, 4, true)
    head.setUint32(16, MAX_FRAME, true)
    head.setUint32(20, LINKTYPE_ETHERNET, true)
    this.used = 24
  }

  /** One frame at `ns` since the epoch of the capture. */
  frame(bytes: Uint8Array, ns: number): void {
    if (this.used + 16 + bytes.length > CHUNK) this.flush()
    if (16 + bytes.length > CHUNK) throw new Error('frame too long for a capture')
    const view = new DataView(this.chunk.buffer, this.used)
    view.setUint32(0, Math.floor(ns / 1e9), true)
    view.setUint32(4, Math.floor(ns % 1e9), true)
    view.setUint32(8, bytes.length, true)
    view.setUint32(12, bytes.length, true)
    this.chunk.set(bytes, this.used + 16)
    this.used += 16 + bytes.length
  }

  private flush(): void {
    this.sink(this.chunk.slice(0, this.used))
    this.used = 0
  }

  /** Writes what is left. */
  end(): void {
    this.flush()
  }
}

/** writeCapture - all frames of a port as a capture, in pieces. */
export function writeCapture(sink: (bytes: Uint8Array) => void, captured: CapturedFrames): void {
  const writer = new PcapWriter(sink)
  let at = 0
  captured.lengths.forEach((len, k) => {
    writer.frame(captured.data.subarray(at, at + len), captured.times[k]!)
    at += len
  })
  writer.end()
}
