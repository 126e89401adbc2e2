/**
 * sysctl.ts - /proc/sys/net: the names of what can be set while the machine runs. The table is text, the same on each CPU; the
 * values lie where they are used.
 */
import { EINVAL, ENOENT } from '../../lib/errno.js'

/** One that can be read and set: a whole number. */
export interface ctl_table {
  get(): number
  /** @context process @locks rtnl is held @returns 0, -errno */
  set(value: number): number
}

const tables = new Map<string, ctl_table>()
/** Directories with an entry for each device and the like: what lies behind `prefix`. */
const directories = new Map<string, (rest: string) => ctl_table | null>()

/** register_sysctl - at module load. */
export function register_sysctl(name: string, table: ctl_table): void {
  tables.set(name, table)
}
export function register_sysctl_dir(prefix: string, lookup: (rest: string) => ctl_table | null): void {
  directories.set(prefix, lookup)
}

/** sysctl_word - a field of a struct as a sysctl, between two values. */
export function sysctl_word<T extends object>(
  name: string,
  of: () => T,
  field: keyof T,
  min: number,
  max: number,
): void {
  register_sysctl(name, {
    get: () => of()[field] as number,
    set(value) {
      if (value < min || value > max) return -EINVAL
      of()[field] = value as T[keyof T]
      return 0
    },
  })
}

/** One of several numbers, such as a range. */
export interface ctl_vector {
  get(): number[]
  /** @param values as many as get() gives @context process @locks rtnl is held @returns 0, -errno */
  set(values: readonly number[]): number
}
const vectors = new Map<string, ctl_vector>()
/** register_sysctl_vector - at module load. */
export function register_sysctl_vector(name: string, vector: ctl_vector): void {
  vectors.set(name, vector)
}

/** find_sysctl - by its name with dots. */
export function find_sysctl(name: string): ctl_table | null {
  const table = tables.get(name)
  if (table !== undefined) return table
  for (const [prefix, lookup] of directories) if (name.startsWith(prefix)) return lookup(name.slice(prefix.length))
  return null
}

/** sysctl_names - those that have no device in them. */
export function sysctl_names(): string[] {
  return [...tables.keys(), ...vectors.keys()].sort()
}

/** sysctl_read - @returns its numbers, or null: there is none of that name */
export function sysctl_read(name: string): number[] | null {
  const vector = vectors.get(name)
  if (vector !== undefined) return vector.get()
  const table = find_sysctl(name)
  return table === null ? null : [table.get()]
}

/**
 * sysctl_write - of several numbers the first ones may do: the others stay. @context process @locks rtnl is held
 * @returns 0, -ENOENT, -EINVAL
 */
export function sysctl_write(name: string, value: number | readonly number[]): number {
  const values = typeof value === 'number' ? [value] : value
  const before = sysctl_read(name)
  if (before === null) return -ENOENT
  if (values.length === 0 || values.length > before.length || !values.every(Number.isInteger)) return -EINVAL
  const vector = vectors.get(name)
  if (vector !== undefined) return vector.set([...values, ...before.slice(values.length)])
  return find_sysctl(name)!.set(values[0]!)
}
