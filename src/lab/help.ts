/** help.ts - how the help shows an option: its default as a user would write it. */
import type { Option } from 'commander'

const MILLION = 1_000_000

/** written - a default value as it stands on a command line; null when there is nothing to say. */
export function written(value: unknown): string | null {
  if (value === undefined || value === null) return null
  if (Array.isArray(value)) {
    const parts = value.map(v => (Array.isArray(v) ? v.join(':') : String(v)))
    return parts.length === 0 ? null : parts.join(',')
  }
  if (typeof value === 'object') {
    const { packets, peak } = value as { packets?: number; peak?: number }
    return packets === undefined || peak === undefined ? null : `${packets}@${peak / MILLION}M`
  }
  return String(value)
}

/** optionDescription - for commander, which would print the default as JSON. */
export function optionDescription(option: Option): string {
  const value = option.defaultValueDescription ?? written(option.defaultValue)
  return value === null ? option.description : `${option.description} (default: ${value})`
}
