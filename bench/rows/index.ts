import type { Row } from '../row.ts'
import { coldStart } from './cold-start.ts'
import { delivery } from './delivery.ts'
import { fleet } from './fleet.ts'
import { idle } from './idle.ts'
import { memory } from './memory.ts'
import { rotation } from './rotation.ts'
import { secrets } from './secrets.ts'
import { ships } from './ships.ts'

/** In the order in which they are measured and shown. */
export const rows: readonly Row[] = [coldStart, memory, delivery, secrets, idle, rotation, ships, fleet]
