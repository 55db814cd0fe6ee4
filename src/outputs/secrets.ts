import type { Snapshot } from '../core/snapshot.ts'
import { registry } from '../registry.ts'
import { json } from './json.ts'
import type { Output } from './output.ts'
import type { SecretOutputDeps } from './secret-output.ts'

/** All that a secret may become. */
export const secretOutputs = registry<SecretOutputDeps, Output<Snapshot>>(json)
