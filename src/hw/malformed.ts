/** malformed.ts - the ways in which a frame can be broken: variations of one good UDP frame. */

function checksum(frame: Uint8Array): void {
  const hlen = (frame[14]! & 15) * 4
  frame[24] = 0
  frame[25] = 0
  let sum = 0
  for (let k = 14; k < 14 + hlen && k + 1 < frame.length; k += 2) sum += (frame[k]! << 8) | frame[k + 1]!
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  frame[24] = (~sum >> 8) & 0xff
  frame[25] = ~sum & 0xff
}

function variant(good: Uint8Array, change: (frame: Uint8Array) => Uint8Array | undefined, fix = true): Uint8Array {
  const frame = good.slice()
  const changed = change(frame) ?? frame
  if (fix && changed.length >= 34) checksum(changed)
  return changed
}

function put(frame: Uint8Array, at: number, ...bytes: number[]): undefined {
  frame.set(bytes, at)
  return undefined
}

/** Room for options in the header: IHL 15, and the bytes given, the rest no-operations. */
function with_options(good: Uint8Array, options: number[]): Uint8Array {
  return variant(good, frame => {
    const long = new Uint8Array(100)
    long.set(frame.subarray(0, 34))
    long.fill(1, 34, 74)
    long.set(options, 34)
    long.set(frame.subarray(34), 74)
    long[14] = 0x4f
    long[17] = 86
    return long
  })
}

/** make_malformed - one frame of each kind, from a good frame of 60 bytes. */
export function make_malformed(good: Uint8Array): Uint8Array[] {
  return [
    variant(good, f => f.slice(0, 20), false), // truncated in the IP header
    variant(good, f => f.slice(0, 33), false),
    variant(good, f => put(f, 14, 0x65)), // version 6
    variant(good, f => put(f, 14, 0x44)), // header shorter than 20 bytes
    variant(good, f => put(f, 14, 0x4f), false), // header longer than the packet
    variant(good, f => put(f, 24, f[24]! ^ 0x55), false), // checksum
    variant(good, f => put(f, 16, 0x05, 0xdc)), // says 1500 bytes, has 46
    variant(good, f => put(f, 16, 0, 10)), // says fewer bytes than its header
    variant(good, f => put(f, 22, 0)), // TTL 0
    variant(good, f => put(f, 26, ...f.subarray(30, 34))), // land: from its own destination
    variant(good, f => put(f, 26, 127, 0, 0, 1)), // martian sources
    variant(good, f => put(f, 26, 240, 1, 1, 1)),
    variant(good, f => put(f, 26, 224, 0, 0, 9)),
    variant(good, f => put(f, 26, 0, 1, 2, 3)),
    variant(good, f => put(f, 30, 127, 1, 1, 1)), // martian destinations
    variant(good, f => put(f, 30, 0, 0, 0, 5)),
    variant(good, f => put(f, 30, 255, 0, 0, 7)),
    variant(good, f => put(f, 12, 0x88, 0xb5)), // unknown protocol
    with_options(good, [7, 60, 4]), // record route longer than the header
    with_options(good, [131, 1, 4]), // source route shorter than its own length byte
    with_options(good, [68, 40, 99, 0]), // timestamp pointer far outside
    with_options(good, [137, 39, 3]), // strict source route, pointer before its data
  ]
}
