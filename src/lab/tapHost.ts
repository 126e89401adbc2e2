/** tapHost.ts - the host's end of a TAP device. */

/** hostCommands - what gives the host's end its address, for who wants to do that himself. */
export function hostCommands(tap: string, address: string): string[][] {
  return [
    ['ip', 'addr', 'replace', address, 'dev', tap],
    ['ip', 'link', 'set', tap, 'up'],
  ]
}
