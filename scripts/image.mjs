/**
 * image.mjs - links what a CPU's thread loads into a few files, dist/image: a thread then reads 4 files instead of 250, which
 * is most of what a boot takes. The modules in dist/src stay what they are; who finds the image older than they are loads them.
 *
 *   node scripts/image.mjs
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const dist = join(dirname(dirname(fileURLToPath(import.meta.url))), 'dist')
const image = join(dist, 'image')

/** The modules that a module loads when it is imported, itself among them. */
function imported(file, seen = new Set()) {
  if (seen.has(file)) return seen
  seen.add(file)
  for (const [, from] of readFileSync(file, 'utf8').matchAll(
    /^(?:import|export)\s(?:[^'"();]*?\bfrom\s)?['"](\.[^'"]+)['"]/gm,
  ))
    imported(resolve(dirname(file), from), seen)
  return seen
}

const scripts = dir =>
  existsSync(join(dist, dir))
    ? readdirSync(join(dist, dir))
        .filter(f => f.endsWith('.js'))
        .map(f => join(dist, dir, f))
    : []

const workers = ['workers/cpu.js', 'workers/nic.js'].map(f => join(dist, f))
/** What machines load beside the kernel, see MachineConfig.programs. */
const programs = ['src/torture', 'test/torture/scenarios', 'test/e2e/programs']
  .flatMap(scripts)
  .concat(join(dist, 'src/user/probe.js'))

const board = imported(join(dist, 'src/hw/board.js'))
const kernel = imported(join(dist, 'src/init/main.js'))

rmSync(image, { recursive: true, force: true })
const bundle = await rolldown({
  input: Object.fromEntries([...workers, ...programs].map(f => [relative(dist, f).replace(/\.js$/, ''), f])),
  platform: 'node',
  external: id => !id.startsWith('.') && !id.startsWith('/') && !/^[a-zA-Z]:/.test(id),
  preserveEntrySignatures: 'allow-extension',
  plugins: [
    {
      name: 'maps of the compiler',
      load: id => ({ code: readFileSync(id, 'utf8'), map: JSON.parse(readFileSync(`${id}.map`, 'utf8')) }),
    },
  ],
})
await bundle.write({
  dir: image,
  format: 'esm',
  sourcemap: true,
  keepNames: true,
  entryFileNames: '[name].js',
  chunkFileNames: 'chunks/[name].js',
  codeSplitting: {
    includeDependenciesRecursively: false,
    // Two pieces, in the order in which the modules run by themselves: the layout of memory follows from it.
    groups: [
      { name: 'machine', test: id => kernel.has(id) && board.has(id) },
      { name: 'kernel', test: id => kernel.has(id) },
    ],
  },
})
await bundle.close()
const entries = [...workers, ...programs]
const modules = new Set([...board, ...kernel, ...entries.flatMap(f => [...imported(f)])])
const paths = files => [...files].map(f => relative(dist, f).replaceAll('\\', '/')).sort()
writeFileSync(
  join(image, 'image.json'),
  `${JSON.stringify({ entries: paths(entries), modules: paths(modules) }, null, 1)}\n`,
)
