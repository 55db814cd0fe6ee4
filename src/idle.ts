import { systemClock } from './clock.ts'
import type { CertificateConfig, Config } from './config/config.ts'
import { createTargets, manage } from './manage.ts'
import type { ManagedCertificate } from './rotation.ts'
import { missingVault, openCluster, openVault } from './sidecar.ts'
import type { Vault } from './vault/client.ts'

/** The certificates of a config, made but not run: for those who only look. */
export interface Idle extends AsyncDisposable {
  readonly vault: Vault | undefined
  readonly certificates: readonly { readonly config: CertificateConfig; readonly cert: ManagedCertificate }[]
}

/** Opens, locks and writes nothing. Throws CONFIG_INVALID as `manage` does. */
export function openIdle(config: Config, env: Readonly<Record<string, string | undefined>>): Idle {
  const cluster = openCluster(config, env)
  const deps = { clock: systemClock, env, emit: () => {}, kubernetes: cluster.kubernetes }
  const vault = openVault(config, deps)
  const parts = { ...deps, targets: createTargets(deps), vault: () => vault ?? missingVault() }
  return {
    vault,
    certificates: config.certificates.map((certificate) => ({ config: certificate, cert: manage(certificate, parts) })),
    [Symbol.asyncDispose]: async () => {
      await vault?.[Symbol.asyncDispose]()
      await cluster[Symbol.asyncDispose]()
    },
  }
}
