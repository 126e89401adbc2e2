/** setup.ts - what the init process is told: plain data from the host. Addresses are int32, network order read as a number. */

/** Values of sysctls by name: a number, or several of one such as net.ipv4.ip_local_port_range. */
export type SysctlSetup = Record<string, number | number[]>

export interface PortSetup {
  name: string
  /** Station address: first 4 and last 2 bytes. */
  mac: { hi: number; lo: number }
  mtu: number
  addresses: { local: number; prefixlen: number }[]
  queues: number
  promisc: boolean
}

export interface RouteSetup {
  dst: number
  prefixlen: number
  type: 'unicast' | 'unreachable' | 'blackhole' | 'prohibit' | 'throw'
  metric: number
  nexthops: { gw: number; dev: string; weight: number }[]
}

export interface NeighbourSetup {
  address: number
  dev: string
  mac: { hi: number; lo: number }
}

/** A program that init starts when the network is up. */
export interface ProcessSetup {
  /** Its name, and its arguments. */
  argv: string[]
  /** The CPU that it belongs to; nothing: CPU 0. */
  cpu?: number
  /** Who runs it; nothing: root. */
  uid?: number
  /** How long after the start of the machine it begins. */
  delayMs?: number
  /** It goes on as long as the machine runs: nobody waits for its end. */
  daemon?: boolean
}

export interface RouterSetup {
  ports: PortSetup[]
  routes: RouteSetup[]
  neighbours: NeighbourSetup[]
  /** By Linux's names, such as net.ipv4.ip_forward or net.ipv4.conf.eth0.rp_filter. */
  sysctl?: SysctlSetup
  processes?: ProcessSetup[]
  /** Tables of the packet filter, as table_blob() writes them. */
  iptables?: Int32Array[]
}
