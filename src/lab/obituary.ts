/** obituary.ts - what RAM says of a CPU whose thread is gone: it cannot write its own dump any more. */
import type { RamReader } from './ramReader.js'

/** describeAddress - `variable[cpu].field` for an address, or the address. */
function describeAddress(ram: RamReader, addr: number): string {
  const { percpu_base, percpu_shift, variables } = ram.map
  const area = (addr - percpu_base) >> percpu_shift
  const percpu = area >= 0 && area < 32
  const offset = percpu ? addr - percpu_base - (area << percpu_shift) : addr
  let best = ''
  let nearest = Infinity
  for (const [name, v] of Object.entries(variables)) {
    if ((v.kind === 'percpu') !== percpu) continue
    for (const [field, at] of Object.entries(v.fields)) {
      const distance = offset - v.offset - at
      if (distance < 0 || distance >= Math.min(nearest, 4096)) continue
      nearest = distance
      best = `${name}${percpu ? `[${area}]` : ''}.${field}${distance === 0 ? '' : `+0x${distance.toString(16)}`}`
    }
  }
  return best === '' ? `0x${addr.toString(16)}` : best
}

function taskName(ram: RamReader, task: number): string {
  const { comm, pid, program } = ram.map.task
  const at = task + comm!
  const end = ram.u8.subarray(at, at + 16).indexOf(0)
  const name = Buffer.from(ram.u8.slice(at, at + (end < 0 ? 16 : end))).toString()
  const symbol = ram.map.symbols[ram.i32[(task + program!) >> 2]!] ?? '?'
  return `${symbol} of process ${ram.i32[(task + pid!) >> 2]!} (${name})`
}

/** obituary - function, CPU, context and held locks of a dead CPU, as lines of a dump. */
export function obituary(ram: RamReader, cpu: number): string {
  const area = ram.map.percpu_base + (cpu << ram.map.percpu_shift)
  const { irq_flag, preempt, current, context, held, held_stack } = ram.map.registers
  const word = (offset: number): number => ram.i32[(area + offset) >> 2]!
  const packed = word(context)
  const where = ram.map.contexts[packed & 7] ?? '?'
  const arg = packed >> 3
  const task = word(current)
  const running = task === 0 ? 'no process' : taskName(ram, task)
  const what = where === 'hardirq' ? `vector ${arg}` : where === 'softirq' ? `softirq ${arg}` : ''
  const locks: string[] = []
  for (let k = 0; k < word(held) && k < 48; k++) locks.push(describeAddress(ram, word(held_stack + k * 4)))
  return (
    `\nEIP is at ${what === '' ? '' : `${what} over `}${running}` +
    `\nCPU: ${cpu}  context: ${where}  preempt_count: 0x${(word(preempt) >>> 0).toString(16)}  ` +
    `irqs: ${word(irq_flag) !== 0 ? 'on' : 'off'}` +
    `\nheld locks: ${locks.length === 0 ? 'none' : locks.join(' ')}`
  )
}
