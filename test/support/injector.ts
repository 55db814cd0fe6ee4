import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Certferry, startCertferry } from './certferry.ts'
import type { TestKubernetes } from './kubernetes.ts'
import { freePort } from './nginx.ts'
import { until } from './until.ts'
import type { TestVault } from './vault.ts'

export interface InjectorSetup {
  readonly cluster: TestKubernetes
  readonly vault: TestVault
  /** Where its files go. */
  readonly folder: string
  /** Of the sidecars. */
  readonly image: string
  /** Whose pods it is asked about. */
  readonly namespace: string
  /** Further annotations for all pods, without prefix. */
  readonly defaults?: Readonly<Record<string, string>>
}

/** A real one over TLS, whom the API server asks about the pods of the namespace; its rights are the matter of kubernetes-injector.test.ts. */
export async function startInjector({
  cluster,
  vault,
  folder,
  image,
  namespace,
  defaults,
}: InjectorSetup): Promise<Certferry> {
  const port = await freePort()
  const configuration = 'certferry-injector'
  await cluster.api('POST', '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations', {
    metadata: { name: configuration },
    webhooks: [
      {
        name: 'injector.certferry.io',
        admissionReviewVersions: ['v1'],
        sideEffects: 'None',
        failurePolicy: 'Fail',
        reinvocationPolicy: 'IfNeeded',
        clientConfig: { url: `https://127.0.0.1:${port}/mutate` },
        rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
      },
    ],
  })
  const tokenFile = join(folder, 'injector-token')
  writeFileSync(tokenFile, cluster.token, { mode: 0o600 })
  const socket = join(folder, 'injector.sock')
  const configFile = join(folder, 'injector.yaml')
  const config = {
    injector: {
      listen: `127.0.0.1:${port}`,
      certificate: 'injector',
      webhookConfiguration: configuration,
      image,
      namespace: 'certferry',
      defaults: { 'vault-address': vault.address, 'vault-role': 'web', ...defaults },
    },
    kubernetes: {
      apiServer: cluster.url,
      caFile: cluster.caFile,
      tokenFile,
      namespace: 'certferry',
      pod: 'certferry-injector',
    },
    admin: { listen: '127.0.0.1:0', socket },
    log: { format: 'json' },
    certificates: [
      {
        name: 'injector',
        source: { kind: 'dev-ca', secret: 'certferry-injector-ca', altNames: ['127.0.0.1', 'localhost'], ttl: '24h' },
        outputs: [{ kind: 'pem', directory: join(folder, 'injector-tls') }],
        verify: [{ kind: 'tls', address: `127.0.0.1:${port}`, serverName: 'localhost' }],
      },
    ],
  }
  writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 })
  const injector = startCertferry({ verb: 'injector', configFile, socket })
  const isReady = async () => (await injector.get('/readyz')).status === 200
  await until('the injector is ready', isReady, { timeoutMs: 90_000 }).catch(async (cause) => {
    await injector[Symbol.asyncDispose]()
    throw new Error(`${JSON.stringify(injector.log().slice(-5))}\n${injector.stderr()}`, { cause })
  })
  return injector
}
