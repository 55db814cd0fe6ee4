import { systemClock } from './clock.ts'
import type { CertificateConfig, Config, SecretConfig, TrustConfig } from './config/config.ts'
import type { Snapshot } from './core/snapshot.ts'
import type { TrustSet } from './core/trust.ts'
import { createTargets, manage, manageSecret, manageTrust } from './manage.ts'
import type { Managed, ManagedCertificate } from './rotation.ts'
import { openCluster, openVaults, type Vaults } from './sidecar.ts'

/** The certificates and secrets of a config, made but not run: for those who only look. */
export interface Idle extends AsyncDisposable {
  readonly vaults: Vaults
  readonly certificates: readonly { readonly config: CertificateConfig; readonly cert: ManagedCertificate }[]
  readonly secrets: readonly { readonly config: SecretConfig; readonly secret: Managed<Snapshot> }[]
  readonly trust: readonly { readonly config: TrustConfig; readonly trust: Managed<TrustSet> }[]
}

/** Opens, locks and writes nothing. Throws CONFIG_INVALID as `manage` does. */
export function openIdle(config: Config, env: Readonly<Record<string, string | undefined>>): Idle {
  const cluster = openCluster(config, env)
  const deps = { clock: systemClock, env, emit: () => {}, kubernetes: cluster.kubernetes }
  const vaults = openVaults(config, deps)
  const parts = {
    ...deps,
    targets: createTargets(deps),
    vault: vaults.get,
    inService: () => [],
    trusted: () => undefined,
  }
  return {
    vaults,
    certificates: config.certificates.map((certificate) => ({ config: certificate, cert: manage(certificate, parts) })),
    secrets: config.secrets.map((secret) => ({ config: secret, secret: manageSecret(secret, parts) })),
    trust: config.trust.map((trust) => ({ config: trust, trust: manageTrust(trust, parts) })),
    [Symbol.asyncDispose]: async () => {
      await vaults[Symbol.asyncDispose]()
      await cluster[Symbol.asyncDispose]()
    },
  }
}
