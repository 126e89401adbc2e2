/** tshark.ts - the oracle for captures: what it finds wrong in one, a line each. */
import { spawnSync } from 'node:child_process'

export const hasTshark = spawnSync('tshark', ['--version']).status === 0

/** complaints - `any`: datagrams to ports of protocols that they are none of are all right. */
export function complaints(file: string, any = false): string {
  const checks = ['ip.check_checksum', 'udp.check_checksum', 'tcp.check_checksum'].flatMap(o => ['-o', `${o}:TRUE`])
  const bad = [
    ...(any ? [] : ['_ws.malformed']),
    ...['ip', 'udp', 'tcp', 'icmp'].map(p => `${p}.checksum.status == "Bad"`),
    'ip.fragment.error',
    'ip.fragment.overlap',
    'ip.fragment.toolongfragment',
    'ip.bogus_header_length',
    'ip.bogus_ip_length',
  ].join(' || ')
  const { status, stdout, stderr } = spawnSync('tshark', ['-r', file, ...checks, '-Y', bad], { encoding: 'utf8' })
  return status === 0 ? stdout : stderr
}

/** An association that tshark is told of, so that it looks into its packets. */
export interface EspKeys {
  src: string
  dst: string
  spi: string
  /** AES-CBC and HMAC-SHA-1-96, in hex with 0x. */
  enc: string
  auth: string
}

/** decrypted - what tshark finds in each frame of ESP: fields of the packets inside, and whether their digests are good. */
export function decrypted(file: string, keys: readonly EspKeys[], fields: readonly string[]): string[][] {
  const known = keys.map(
    k =>
      `uat:esp_sa:"IPv4","${k.src}","${k.dst}","${k.spi}","AES-CBC [RFC3602]","${k.enc}","HMAC-SHA-1-96 [RFC2404]","${k.auth}"`,
  )
  const options = ['esp.enable_encryption_decode:TRUE', 'esp.enable_authentication_check:TRUE', ...known]
  return dissected(file, 'esp', fields, options)
}

/** dissected - fields of each frame that a filter is for, in tshark's words; several values of one: with commas. Digests are looked at. */
export function dissected(
  file: string,
  filter: string,
  fields: readonly string[],
  options: readonly string[] = ['udp.check_checksum:TRUE'],
): string[][] {
  const wanted = ['-Y', filter, '-T', 'fields', ...fields.flatMap(f => ['-e', f])]
  const args = ['-r', file, ...options.flatMap(o => ['-o', o]), ...wanted]
  const { status, stdout, stderr } = spawnSync('tshark', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  return stdout
    .split('\n')
    .filter(Boolean)
    .map(line => line.split('\t'))
}
