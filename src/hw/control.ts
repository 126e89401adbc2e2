/**
 * control.ts - the host's control block of each port, in its register page: no code, so that the host may import it.
 *
 * The host writes a request, then a new SEQ; the board does it between two steps and copies SEQ to ACK. Counters are
 * doubles that only the board writes; the host reads them while the board runs.
 */

/** Offset of the block in a NIC's page. */
export const CONTROL = 0x200
// words, offsets in the block
export const CTL_SEQ = 0
export const CTL_ACK = 4
export const CTL_ON = 8 // 1: the source sends
export const CTL_RESET = 12 // 1: clear the histogram
export const CTL_FINISHED = 16 // the replay has sent its last frame (board)
export const CTL_RATE = 24 // double: mean frames per second
// doubles: counters of the board
export const CNT_OFFERED = 32 // frames that the wire carried to the NIC
export const CNT_RING = 40 // put into a receive ring
export const CNT_MISSED = 48 // no receive buffer
export const CNT_FILTERED = 56 // not for this station, runts, oversize, NIC down
export const CNT_SENT = 64 // frames put on the wire
export const CNT_SENT_BYTES = 72
export const CNT_REORDERED = 80 // sent after a later one of its flow
export const CNT_OFFERED_BYTES = 88
export const CNT_GENERATED = 96 // sent frames that a generator of this board once offered
export const CNT_STEPS = 104 // of port 0: looks of the board at all its ports, with the host's clock

/** The latency histogram of each port lies at the end of its page's block area in the board's own memory; words. */
export const HISTOGRAM_BYTES = 2240 * 4
