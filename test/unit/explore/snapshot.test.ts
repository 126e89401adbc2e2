/** Memory that is put back after each run. */
import { describe, expect, test } from 'vitest'
import { PAGE, Snapshot } from '../../../src/explore/snapshot.js'

const buffer = (bytes: number): Uint8Array<SharedArrayBuffer> => new Uint8Array(new SharedArrayBuffer(bytes))

describe.each([100, PAGE * 40 + 9])('%i bytes', size => {
  test('are what they were, zeros and others', () => {
    const bytes = buffer(size)
    bytes[3] = 7
    bytes[size - 1] = 9
    const before = bytes.slice()
    const snapshot = new Snapshot(bytes.buffer)
    bytes.fill(5)
    snapshot.restore()
    expect(bytes).toEqual(before)
    snapshot.restore()
    expect(bytes).toEqual(before)
  })
})

test('a large one is put back page by page, also the last, and tells which ones differ', () => {
  const bytes = buffer(PAGE * 40 + 9)
  bytes[PAGE * 2] = 1
  bytes[PAGE * 40 + 8] = 2
  const before = bytes.slice()
  const snapshot = new Snapshot(bytes.buffer)
  expect([snapshot.byPages, snapshot.pages]).toEqual([true, 41])
  const change = (): void => {
    bytes[PAGE * 2 + 5] = 3 // had something in it
    bytes[PAGE * 7] = 4 // zeros
    bytes[PAGE * 40] = 5
  }
  change()
  const differing: number[] = []
  snapshot.restore(page => differing.push(page))
  expect(differing).toEqual([2, 7, 40])
  expect(bytes).toEqual(before)
  change()
  snapshot.restorePage(7)
  expect([bytes[PAGE * 7], bytes[PAGE * 2 + 5]]).toEqual([0, 3])
  for (const page of [2, 40]) snapshot.restorePage(page)
  expect(bytes).toEqual(before)
})
