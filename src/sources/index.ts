import { registry } from '../registry.ts'
import { acme } from './acme.ts'
import { devCa } from './dev-ca.ts'
import type { Source, SourceDeps } from './source.ts'
import { vaultKv } from './vault-kv.ts'
import { vaultPki } from './vault-pki.ts'

/** All kinds of source. */
export const sources = registry<SourceDeps, Source>(vaultPki, vaultKv, acme, devCa)
