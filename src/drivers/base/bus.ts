/**
 * bus.ts - the driver model (drivers/base of 2.6.11), for a machine with one bus: it knows which devices are plugged in and which
 * drivers there are, and brings together those that match: probe when both have come, remove when one goes.
 *
 * Lock charter
 *   bus.sem serialises plugging and unplugging, and guards the records of the devices. Drivers are called under it and may sleep.
 */
import { by, embed, type Layout, layout, Struct, word } from '../../abi/layout.js'
import { DEFINE_STATIC } from '../../abi/section.js'
import { EBUSY, EEXIST, ENODEV } from '../../lib/errno.js'
import { MAX_NICS } from '../../lib/limits.js'
import { down, init_MUTEX, SEMAPHORE, type semaphore, up } from '../../sched/semaphore.js'

/** Places of the bus. */
export const BUS_SLOTS = MAX_NICS

export class device extends Struct {
  declare slot: number
  declare present: number
  declare driver: number
  declare driver_data: number
  declare config0: number
  declare config1: number
  declare config2: number
}
const DEVICE: Layout<device> = layout('device', device, {
  slot: word,
  present: by('bus.sem', word),
  driver: by('bus.sem', word), // 1 and its number; 0: nobody has taken the device
  driver_data: by('bus.sem', word),
  config0: word, // what the device tells of itself, see its driver
  config1: word,
  config2: word,
})

export interface device_driver {
  readonly name: string
  /** Is this device one of its own? */
  match(dev: device): boolean
  /** Takes the device. @context process @returns 0, or a negative errno */
  probe(dev: device): Generator<void, number, void>
  /** Lets go of it, once nobody uses it any more. @context process @returns 0, or a negative errno: it cannot */
  remove(dev: device): Generator<void, number, void>
}

class bus_type extends Struct {
  declare sem: semaphore
}
const BUS: Layout<bus_type> = layout('bus_type', bus_type, { sem: embed(SEMAPHORE) })
const bus = DEFINE_STATIC('bus', BUS)
const slots = Array.from({ length: BUS_SLOTS }, (_, k) => DEFINE_STATIC(`device${k}`, DEVICE))
/** The text of the kernel, the same on every CPU. */
const drivers: device_driver[] = []

/** driver_register - when its module is loaded, in the same order on every CPU. @returns its number */
export function driver_register(driver: device_driver): number {
  return drivers.push(driver)
}

/** device_at - the record of a place of the bus, or null: there is no such place. */
export function device_at(slot: number): device | null {
  return slots[slot] ?? null
}

/** device_found - a device that was there at power-on, which its driver has taken. @context boot */
export function device_found(slot: number, driver: number, driver_data: number, config: readonly number[]): void {
  const dev = slots[slot]!
  dev.slot = slot
  dev.present = 1
  dev.driver = driver
  dev.driver_data = driver_data
  dev.config0 = config[0] ?? 0
  dev.config1 = config[1] ?? 0
  dev.config2 = config[2] ?? 0
}

/** The driver that says that it is its own. @locks bus.sem is held */
function* device_attach(dev: device): Generator<void, number, void> {
  const k = drivers.findIndex(d => d.match(dev))
  if (k < 0) return 0 // it waits for one
  const err = yield* drivers[k]!.probe(dev)
  if (err === 0) dev.driver = k + 1
  return err
}
/** @locks bus.sem is held */
function* device_release_driver(dev: device): Generator<void, number, void> {
  if (dev.driver === 0) return 0
  const err = yield* drivers[dev.driver - 1]!.remove(dev)
  if (err !== 0) return err
  dev.driver = 0
  dev.driver_data = 0
  return 0
}

/** device_add - plugged in, into a place that had such a device before. @context process @returns 0, -ENODEV, -EEXIST, or what the driver says */
export function* device_add(slot: number): Generator<void, number, void> {
  const dev = device_at(slot)
  if (dev === null) return -ENODEV
  yield* down(bus.sem)
  let err = -EEXIST
  if (dev.present === 0) {
    dev.present = 1
    err = yield* device_attach(dev)
  }
  up(bus.sem)
  return err
}

/** device_del - unplugged: its driver lets go of it first. @context process @returns 0, -ENODEV, -EBUSY */
export function* device_del(slot: number): Generator<void, number, void> {
  const dev = device_at(slot)
  if (dev === null) return -ENODEV
  yield* down(bus.sem)
  let err = -ENODEV
  if (dev.present !== 0) {
    err = (yield* device_release_driver(dev)) === 0 ? 0 : -EBUSY
    if (err === 0) dev.present = 0
  }
  up(bus.sem)
  return err
}

/** bus_init - @context boot, CPU 0 */
export function bus_init(): void {
  init_MUTEX(bus.sem)
}
