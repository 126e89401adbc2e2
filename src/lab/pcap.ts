/**
 * pcap.ts - classic capture files, both byte orders and both resolutions, Ethernet.
 *
 * Errors are UsageErrors of one line that name the file and what is wrong with it.
 */
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
  /** Frames of which the capture holds only the beginning. */
  cut: number
}

/** readPcap - a whole capture file. */
export async function readPcap(file: string, signal?: AbortSignal): Promise<Capture> {
  return parsePcap(await readInput(file, signal), file)
}

function header(view: DataView, file: string): { little: boolean; unit: number } {
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
  const link = view.getUint32(20, kind.little) & 0x0fffffff
  if (link !== LINKTYPE_ETHERNET)
    throw new UsageError(
      `${file}: link type ${link}${LINK_NAMES[link] === undefined ? '' : ` (${LINK_NAMES[link]})`}, only Ethernet (1) can be used`,
    )
  return kind
}

/** parsePcap - the same from bytes; `name` is for errors. */
export function parsePcap(bytes: Uint8Array, name: string): Capture {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const { little, unit } = header(view, name)
  const starts: number[] = []
  const lengths: number[] = []
  const times: number[] = []
  let cut = 0
  let first = 0n
  let total = 0
  for (let at = 24; at < bytes.length; ) {
    const where = `${name}: packet ${starts.length + 1}`
    if (at + 16 > bytes.length) throw new UsageError(`${where}: truncated in its record header`)
    const len = view.getUint32(at + 8, little)
    if (len > MAX_FRAME) throw new UsageError(`${where}: corrupt, says it is ${len} bytes long`)
    if (at + 16 + len > bytes.length)
      throw new UsageError(`${where}: truncated, ${at + 16 + len - bytes.length} bytes are missing`)
    const ns = BigInt(view.getUint32(at, little)) * 1_000_000_000n + BigInt(view.getUint32(at + 4, little) * unit)
    if (starts.length === 0) first = ns
    if (view.getUint32(at + 12, little) > len) cut++
    starts.push(at + 16)
    lengths.push(len)
    times.push(Math.max(0, Number(ns - first)))
    total += len
    at += 16 + len
  }
  return pack(bytes, starts, lengths, times, total, cut)
}

function pack(
  bytes: Uint8Array,
  starts: number[],
  lengths: number[],
  times: number[],
  total: number,
  cut: number,
): Capture {
  const data = new Uint8Array(new SharedArrayBuffer(total))
  const offsets = new Uint32Array(starts.length)
  let to = 0
  starts.forEach((start, k) => {
    offsets[k] = to
    data.set(bytes.subarray(start, start + lengths[k]!), to)
    to += lengths[k]!
  })
  return { data, offsets, lengths: Uint32Array.from(lengths), times: Float64Array.from(times), cut }
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
