/** clock.ts - import it before anything of the kernel: the machine's clock is then this one, and stands still by itself. */
export const clock = { ns: 1e9 }

globalThis.softnet_boot = {
  memory: new WebAssembly.Memory({ initial: 1024, maximum: 1024, shared: true }),
  cpu: 0,
  now: () => clock.ns,
  lockKind: 0,
}
