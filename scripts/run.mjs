/**
 * run.mjs - what `npm start`, `npm test`, `npm run bench` and `npm pack` call: installs and builds what is missing,
 * then runs the lab in this very process, so that a Ctrl-C reaches it as the terminal sent it.
 *
 *   node scripts/run.mjs <verb> [options]     the command line of softnet
 *   node scripts/run.mjs --test [options]     the tests (options of vitest)
 *   node scripts/run.mjs --bench [options]    the benchmarks
 *   node scripts/run.mjs --build              install and build only
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const modules = join(root, 'node_modules')
const dist = join(root, 'dist')
const sourceDirs = ['src', 'workers', 'test', 'bench']
const buildStamp = join(dist, '.softnet-build')
const lockStamp = join(modules, '.softnet-lock')

/** A failure that one line explains. */
class Stop extends Error {
  constructor(message, exitCode) {
    super(message)
    this.exitCode = exitCode
  }
}

const say = line => process.stderr.write(`softnet: ${line}\n`)
const sha256 = data => createHash('sha256').update(data).digest('hex')

function checkEngine() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19))
    throw new Stop(`needs Node 20.19 or newer, this is ${process.versions.node}`, 2)
}

/** Runs a tool with our terminal; resolves to its exit code. A signal sent to us alone is passed on. */
function runTool(command, args, what) {
  return new Promise((resolve, reject) => {
    const started = Date.now()
    const seconds = () => Math.round((Date.now() - started) / 1000)
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 2, 'inherit'] })
    // A terminal sees the tool's own progress, a pipe would see nothing for a long while.
    const beat = setInterval(() => say(`${what} ... ${seconds()} s`), 5000)
    if (process.stderr.isTTY) clearInterval(beat)
    const pass = signal => child.kill(signal)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, pass)
    const finish = () => {
      clearInterval(beat)
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.off(signal, pass)
    }
    child.on('error', error => {
      finish()
      reject(new Stop(`${what}: cannot start ${command} (${error.code ?? error.message})`, 1))
    })
    child.on('exit', (code, signal) => {
      finish()
      if (signal === 'SIGINT' || code === 130) reject(new Stop(`${what}: interrupted`, 130))
      else if (signal !== null) reject(new Stop(`${what}: ended by ${signal}`, 1))
      else resolve({ code: code ?? 1, seconds: seconds() })
    })
  })
}

/** True when what npm says it has installed is what the lockfile asks for. */
function installedAsLocked(lockText) {
  try {
    const wanted = JSON.parse(lockText).packages
    const have = JSON.parse(readFileSync(join(modules, '.package-lock.json'), 'utf8')).packages
    return Object.entries(wanted).every(([path, p]) => {
      if (path === '' || (p.optional && have[path] === undefined)) return true
      return have[path]?.version === p.version && existsSync(join(root, path, 'package.json'))
    })
  } catch {
    return false
  }
}

async function install() {
  const lockText = readFileSync(join(root, 'package-lock.json'), 'utf8')
  const hash = sha256(lockText)
  const stamped = () => readFileSync(lockStamp, 'utf8').trim() === hash
  if (existsSync(lockStamp) && stamped()) return
  if (!installedAsLocked(lockText)) {
    say('installing what package-lock.json names (npm ci), once')
    // The compiler is a development dependency: it is needed whatever NODE_ENV says.
    const args = ['ci', '--include=dev', '--no-audit', '--no-fund']
    const npm = process.env.npm_execpath
    const viaNode = npm?.endsWith('npm-cli.js')
    const { code, seconds } = await runTool(
      viaNode ? process.execPath : 'npm',
      viaNode ? [npm, ...args] : args,
      'installing',
    )
    if (code !== 0) throw new Stop(`npm ci failed with exit code ${code}`, 1)
    say(`installed in ${seconds} s`)
  }
  writeFileSync(lockStamp, `${hash}\n`)
}

function* filesBelow(dir) {
  if (!existsSync(dir)) return
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name)
    if (entry.isDirectory()) yield* filesBelow(path)
    else yield path
  }
}

const sources = () =>
  sourceDirs.flatMap(dir => [...filesBelow(join(root, dir))].filter(f => f.endsWith('.ts') && !f.endsWith('.d.ts')))

/** One hash over name, size and time of every source: it also changes when a source has gone. */
function fingerprint(files) {
  const facts = [...files, join(root, 'tsconfig.json'), join(root, 'package.json'), lockStamp].sort().map(f => {
    const s = statSync(f)
    return `${relative(root, f)} ${s.size} ${s.mtimeMs}`
  })
  return sha256(facts.join('\n'))
}

const outputOf = source => join(dist, relative(root, source)).replace(/\.ts$/, '.js')

/** Removes compiled files whose source has gone, so that no test and no tarball holds them. */
function removeStale(files) {
  const live = new Set(files.map(outputOf))
  for (const dir of sourceDirs)
    for (const file of filesBelow(join(dist, dir)))
      if (!live.has(file.replace(/(\.d\.ts|\.js\.map|\.js)$/, '.js'))) rmSync(file)
}

async function build() {
  const files = sources()
  if (files.length === 0) throw new Stop('no sources here: run this from a clone, not from an installed package', 2)
  const print = fingerprint(files)
  const missing = files.some(f => !existsSync(outputOf(f)))
  if (!missing && existsSync(buildStamp) && readFileSync(buildStamp, 'utf8').trim() === print) return
  say(`compiling ${files.length} files (tsc -p tsconfig.json)`)
  mkdirSync(dist, { recursive: true })
  removeStale(files)
  if (missing) rmSync(join(dist, '.tsbuildinfo'), { force: true }) // else tsc trusts that its outputs are still there
  rmSync(buildStamp, { force: true })
  const tsc = join(modules, 'typescript', 'bin', 'tsc')
  const { code, seconds } = await runTool(process.execPath, [tsc, '-p', join(root, 'tsconfig.json')], 'compiling')
  if (code !== 0) throw new Stop('the sources do not compile: see above', 1)
  const image = await runTool(process.execPath, [join(root, 'scripts', 'image.mjs')], 'linking')
  if (image.code !== 0) throw new Stop('the image of the kernel cannot be linked: see above', 1)
  writeFileSync(buildStamp, `${print}\n`)
  say(`compiled in ${seconds} s`)
}

/** Runs a command-line program in this process, as if it had been started with these arguments. */
async function become(file, args) {
  process.argv = [process.argv[0], file, ...args]
  await import(pathToFileURL(file).href)
}

async function main(args) {
  checkEngine()
  await install()
  await build()
  const [mode, ...rest] = args
  if (mode === '--build') return
  if (mode === '--test') {
    const config = ['--root', root, '--config', join(root, 'vitest.config.mjs')]
    await become(join(modules, 'vitest', 'vitest.mjs'), ['run', ...config, ...rest])
  } else if (mode === '--bench') {
    await become(join(dist, 'bench', 'run.js'), rest)
  } else {
    await become(join(root, 'bin', 'softnet.mjs'), args)
  }
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof Stop)) throw error
  say(error.message)
  process.exitCode = error.exitCode
}
