import { registry } from '../registry.ts'
import { acme } from './acme.ts'
import { devCa } from './dev-ca.ts'
import { file } from './file.ts'
import { http } from './http.ts'
import { kubernetesSecret } from './kubernetes-secret.ts'
import type { Source, SourceDeps } from './source.ts'
import { spiffe } from './spiffe.ts'
import { vaultKv } from './vault-kv.ts'
import { vaultPki } from './vault-pki.ts'

/** All kinds of source. */
export const sources = registry<SourceDeps, Source>(
  vaultPki,
  vaultKv,
  acme,
  file,
  http,
  kubernetesSecret,
  spiffe,
  devCa,
)
