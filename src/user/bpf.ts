/**
 * bpf.ts - instructions of socket filters (struct sock_filter, as in net/bpf.h), put together with labels, and printed as tcpdump
 * prints them.
 */
import { type Libc, malloc, mem, setsockopt } from './libc.js'

const SOL_SOCKET = 1
const SO_ATTACH_FILTER = 26
const BPF_MAXINSNS = 4096

// codes: class, size, mode
export const LD = { w: 0x20, h: 0x28, b: 0x30 } as const // [k]
export const LD_IND = { w: 0x40, h: 0x48, b: 0x50 } as const // [x + k]
export const LD_LEN = 0x80
/** X = 4 * ([k] & 15) */
export const LDX_MSH = 0xb1
export const AND_K = 0x54
export const JA = 0x05
export const JEQ = 0x15
export const JGT = 0x25
export const JGE = 0x35
export const JSET = 0x45
export const RET_K = 0x06

export interface Insn {
  code: number
  /** Instructions to skip when it holds, and when not. */
  jt: number
  jf: number
  /** Unsigned. */
  k: number
}

/** A place in the program that is not known yet. */
export interface Label {
  at: number
}
interface Piece {
  code: number
  k: number
  yes?: Label
  no?: Label
}

/** A filter in the making. Jumps go forward only. */
export class Assembler {
  private readonly pieces: Piece[] = []

  label(): Label {
    return { at: -1 }
  }
  /** What comes next stands at the label. */
  place(label: Label): void {
    label.at = this.pieces.length
  }
  emit(code: number, k = 0): void {
    this.pieces.push({ code, k: k >>> 0 })
  }
  branch(code: number, k: number, yes: Label, no: Label): void {
    this.pieces.push({ code, k: k >>> 0, yes, no })
  }

  /** The instructions, or null: more than the kernel takes. */
  finish(): Insn[] | null {
    const near = this.pieces.every(({ yes, no }, k) => yes === undefined || Math.max(yes.at, no!.at) - k - 1 < 256)
    const out = near ? this.pieces.map((p, k) => jump(p, k)) : this.far()
    return out.length > BPF_MAXINSNS ? null : out
  }
  /** With a branch as three instructions, since it cannot skip more than 255. */
  private far(): Insn[] {
    const starts: number[] = [0]
    for (const p of this.pieces) starts.push(starts.at(-1)! + (p.yes === undefined ? 1 : 3))
    return this.pieces.flatMap((p, n) => {
      if (p.yes === undefined) return [jump(p, n)]
      const k = starts[n]!
      return [
        { code: p.code, jt: 0, jf: 1, k: p.k },
        { code: JA, jt: 0, jf: 0, k: starts[p.yes.at]! - k - 2 },
        { code: JA, jt: 0, jf: 0, k: starts[p.no!.at]! - k - 3 },
      ]
    })
  }
}
function jump({ code, k, yes, no }: Piece, at: number): Insn {
  return { code, jt: yes === undefined ? 0 : yes.at - at - 1, jf: no === undefined ? 0 : no.at - at - 1, k }
}

/** assemble - the instructions as they lie in memory, 8 bytes each. */
export function assemble(insns: readonly Insn[]): Uint8Array {
  const out = new DataView(new ArrayBuffer(8 * insns.length))
  insns.forEach(({ code, jt, jf, k }, n) => {
    out.setUint16(8 * n, code, true)
    out.setUint8(8 * n + 2, jt)
    out.setUint8(8 * n + 3, jf)
    out.setUint32(8 * n + 4, k, true)
  })
  return new Uint8Array(out.buffer)
}

/** attach_filter - the socket gets what the filter lets through. @returns 0, or a negative errno */
export function* attach_filter(fd: number, insns: readonly Insn[]): Libc {
  const at = malloc(8 * insns.length)
  mem(at, 8 * insns.length).set(assemble(insns))
  const fprog = malloc(8)
  const view = new DataView(mem(fprog, 8).buffer, mem(fprog, 8).byteOffset, 8)
  view.setUint32(0, insns.length, true)
  view.setUint32(4, at, true)
  return yield* setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog, 8)
}

const NAMES: Readonly<Record<number, readonly [name: string, operand: (k: number) => string]>> = {
  [LD.w]: ['ld', k => `[${k}]`],
  [LD.h]: ['ldh', k => `[${k}]`],
  [LD.b]: ['ldb', k => `[${k}]`],
  [LD_IND.w]: ['ld', k => `[x + ${k}]`],
  [LD_IND.h]: ['ldh', k => `[x + ${k}]`],
  [LD_IND.b]: ['ldb', k => `[x + ${k}]`],
  [LD_LEN]: ['ld', () => '#pktlen'],
  [LDX_MSH]: ['ldxb', k => `4*([${k}]&0xf)`],
  [AND_K]: ['and', k => `#0x${k.toString(16)}`],
  [JEQ]: ['jeq', k => `#0x${k.toString(16)}`],
  [JGT]: ['jgt', k => `#0x${k.toString(16)}`],
  [JGE]: ['jge', k => `#0x${k.toString(16)}`],
  [JSET]: ['jset', k => `#0x${k.toString(16)}`],
  [RET_K]: ['ret', k => `#${k}`],
}
/** bpf_image - a line for each instruction, in the words of bpf_image(3). */
export function bpf_image(insns: readonly Insn[]): string {
  return insns
    .map(({ code, jt, jf, k }, n) => {
      const number = `(${String(n).padStart(3, '0')})`
      if (code === JA) return `${number} ja       ${n + 1 + k}\n`
      const [name, operand] = NAMES[code]!
      const text = `${number} ${name.padEnd(8)} ${operand(k)}`
      return (code & 7) === 5 ? `${text.padEnd(31)} jt ${n + 1 + jt}\tjf ${n + 1 + jf}\n` : `${text}\n`
    })
    .join('')
}
