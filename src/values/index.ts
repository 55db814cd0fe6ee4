import { registry } from '../registry.ts'
import type { ValueDeps, ValueSource } from './value.ts'
import { vaultKv } from './vault-kv.ts'
import { vaultRead } from './vault-read.ts'
import { vaultSsh } from './vault-ssh.ts'
import { vaultTransit } from './vault-transit.ts'

/** All places that a value of a secret may come from. */
export const values = registry<ValueDeps, ValueSource>(vaultKv, vaultRead, vaultTransit, vaultSsh)
