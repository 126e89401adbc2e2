/** linker.ts - loads a scenario from texts that are there already, without a loader's hooks. Needs LINKER_FLAGS. */
import { isBuiltin } from 'node:module'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import vm from 'node:vm'
import { resolve } from 'import-meta-resolve'

/** For the thread that links. */
export const LINKER_FLAGS = ['--experimental-vm-modules', '--disable-warning=ExperimentalWarning']

/** linkedScenario - the namespace of this module; `texts` are those of instrumentedGraph(). */
export async function linkedScenario(
  url: string,
  texts: ReadonlyMap<string, string>,
): Promise<Record<string, unknown>> {
  const modules = new Map<string, vm.SourceTextModule>()

  function inside(at: string): vm.SourceTextModule | null {
    const known = modules.get(at)
    const text = texts.get(at)
    if (known !== undefined || text === undefined) return known ?? null
    const module = new vm.SourceTextModule(text, {
      identifier: at,
      initializeImportMeta(meta) {
        const filename = fileURLToPath(at)
        Object.assign(meta, { url: at, filename, dirname: dirname(filename) })
      },
      importModuleDynamically: name => imported(name, at),
    })
    modules.set(at, module)
    return module
  }
  async function link(name: string, from: string): Promise<vm.Module> {
    const at = name.startsWith('.') ? new URL(name, from).href : name
    return inside(at) ?? (await outside(isPackage(at) ? resolve(at, from) : at))
  }
  async function imported(name: string, from: string): Promise<vm.Module> {
    const module = await link(name, from)
    if (module.status === 'unlinked') await module.link((next, referrer) => link(next, referrer.identifier))
    if (module.status === 'linked') await module.evaluate()
    return module
  }
  return (await imported(url, url)).namespace as Record<string, unknown>
}

/** A bare name that is none of the host's. */
function isPackage(at: string): boolean {
  return !at.includes(':') && !at.startsWith('/') && !isBuiltin(at)
}

/** A module of the host, of the explorer, or of a package that shares no memory: the one that this thread has. */
async function outside(at: string): Promise<vm.Module> {
  const exports = (await import(at)) as Record<string, unknown>
  const names = Object.keys(exports)
  return new vm.SyntheticModule(names, function () {
    for (const name of names) this.setExport(name, exports[name])
  })
}
