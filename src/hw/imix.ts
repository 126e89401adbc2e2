/** imix.ts - a mix of sizes that stands for Internet traffic; no code, so that the host may import it. */

/** Simple IMIX, in frames without FCS: 7 of 60, 4 of 590, 1 of 1514 bytes. */
export const IMIX: [number, number][] = [
  [60, 7],
  [590, 4],
  [1514, 1],
]
