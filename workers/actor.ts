/** actor.ts - the thread of one actor of an explored scenario; thread 0 conducts the exploration as well. */
import { parentPort, workerData } from 'node:worker_threads'
import { type ActorData, actorMain } from '../src/explore/thread.js'

await actorMain(workerData as ActorData, parentPort!)
