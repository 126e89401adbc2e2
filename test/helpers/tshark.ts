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
