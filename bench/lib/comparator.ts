/** comparator.ts - builds the C programs of bench/compare into a cache folder and runs them. */
import { execFile, execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** leftOut - thrown by a measure that cannot run here: says why in one line. */
export class LeftOut extends Error {
  override name = 'LeftOut'
}

/** packageRoot - the folder of package.json, from the source tree and from dist/ alike. */
export function packageRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(dir, 'package.json'))) {
    const up = dirname(dir)
    if (up === dir) throw new Error('no package.json above the benchmarks')
    dir = up
  }
  return dir
}

const sources = (): string => join(packageRoot(), 'bench', 'compare')

function findCompiler(): string {
  for (const cc of [process.env['CC'], 'cc', 'gcc', 'clang']) {
    if (cc === undefined || cc === '') continue
    try {
      execFileSync(cc, ['--version'], { stdio: 'ignore' })
      return cc
    } catch {
      // the next one
    }
  }
  throw new LeftOut('no C compiler (cc, gcc or clang) in PATH')
}

function cacheDir(): string {
  const own = join(packageRoot(), '.cache', 'bench')
  try {
    mkdirSync(own, { recursive: true })
    return own
  } catch {
    const tmp = join(tmpdir(), `softnet-bench-${userInfo().uid}`)
    mkdirSync(tmp, { recursive: true })
    return tmp
  }
}

/** buildComparator - path of the built program; built only when its sources or flags have changed.
 *  `libs` are linker flags; a failure to compile is a LeftOut with the compiler's first complaint. */
export function buildComparator(name: string, libs: readonly string[] = []): string {
  const cc = findCompiler()
  const dir = sources()
  const hash = createHash('sha256').update([cc, process.arch, process.env['CFLAGS'] ?? '', ...libs].join(' '))
  for (const f of readdirSync(dir).sort())
    if (f === `${name}.c` || f.endsWith('.h')) hash.update(readFileSync(join(dir, f)))
  const out = join(cacheDir(), `${name}-${hash.digest('hex').slice(0, 12)}`)
  if (existsSync(out)) return out
  const extra = (process.env['CFLAGS'] ?? '').split(/\s+/).filter(s => s !== '')
  const tmp = `${out}.${process.pid}`
  try {
    const args = ['-O2', '-pthread', ...extra, '-o', tmp, join(dir, `${name}.c`), ...libs]
    execFileSync(cc, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  } catch (e) {
    const text = String((e as { stderr?: Buffer }).stderr ?? e)
    const line = text.split('\n').find(l => /error|cannot find|not found/.test(l)) ?? text.split('\n')[0]
    throw new LeftOut(`${name}.c does not compile here: ${line.replaceAll(`${dir}/`, '').trim()}`)
  }
  renameSync(tmp, out)
  return out
}

/** runJson - runs a program and parses the one JSON line it prints. */
export function runJson<T>(file: string, args: readonly string[], signal?: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    execFile(file, [...args], { maxBuffer: 1 << 20, signal }, (error, stdout, stderr) => {
      if (error) return reject(new Error(`${file}: ${stderr.trim() || error.message}`))
      try {
        resolve(JSON.parse(stdout) as T)
      } catch {
        reject(new Error(`${file} printed no JSON: ${stdout.slice(0, 80)}`))
      }
    })
  })
}

export type LockTimes = Record<'tas' | 'pthread_spin' | 'ticket' | 'mcs', number>

/** cLocksAlone - ns per uncontended lock and unlock in C. */
export function cLocksAlone(): Promise<LockTimes> {
  return runJson<LockTimes>(buildComparator('locks'), ['alone'])
}

/** cLocksContended - acquisitions per second in C; `whole` counts the start of the threads in (see locks.c). */
export function cLocksContended(threads: number, seconds: number): Promise<LockTimes & { whole: LockTimes }> {
  return runJson(buildComparator('locks'), ['contended', String(threads), String(seconds)])
}

/** cRcu - ns per read-side pair of liburcu, when its headers are there. */
export function cRcu(): Promise<Record<'memb' | 'bp' | 'qsbr', number>> {
  return runJson(buildComparator('rcu', ['-lurcu-memb', '-lurcu-bp', '-lurcu-qsbr', '-lurcu-common']), [])
}
