import { type TestKubernetes, VAULT_AUDIENCE } from './kubernetes.ts'
import type { TestVault } from './vault.ts'

/** How Vault judges the token of a pod: it asks the API server (TokenReview), or verifies it by the API server's public keys (OIDC discovery). */
export type PodAuth = 'kubernetes' | 'jwt'

export interface PodLogin {
  readonly vault: Pick<TestVault, 'api'>
  readonly cluster: TestKubernetes
  readonly kind: PodAuth
  /** The kind unless given. */
  readonly mount?: string
  readonly role: string
  readonly serviceAccount: string
  readonly namespace: string
  readonly policy: string
}

/** A role that pods of one service account log in to, on a mount that is made where there is none. */
export async function setupPodLogin(login: PodLogin): Promise<void> {
  const { vault, kind, mount = kind, role, serviceAccount, namespace, policy } = login
  const name = `${mount}-${role}`
  await vault.api('POST', `sys/policies/acl/${name}`, { policy })
  await enable(login, mount)
  const common = { token_policies: [name], token_ttl: '1h' }
  const bound =
    kind === 'kubernetes'
      ? {
          bound_service_account_names: [serviceAccount],
          bound_service_account_namespaces: [namespace],
          audience: VAULT_AUDIENCE,
        }
      : {
          role_type: 'jwt',
          user_claim: 'sub',
          bound_audiences: [VAULT_AUDIENCE],
          bound_subject: `system:serviceaccount:${namespace}:${serviceAccount}`,
        }
  await vault.api('POST', `auth/${mount}/role/${role}`, { ...common, ...bound })
}

async function enable({ vault, cluster, kind }: PodLogin, mount: string): Promise<void> {
  const { data } = await vault.api('GET', 'sys/auth')
  if (data && Object.hasOwn(data, `${mount}/`)) return
  await vault.api('POST', `sys/auth/${mount}`, { type: kind })
  await (kind === 'kubernetes' ? trustReviews : trustKeys)(vault, cluster, mount)
}

const REVIEWER = { name: 'vault-reviewer', namespace: 'kube-system' }

async function trustReviews(vault: PodLogin['vault'], cluster: TestKubernetes, mount: string): Promise<void> {
  await cluster.createServiceAccount(REVIEWER.name, REVIEWER.namespace)
  await bind(cluster, 'system:auth-delegator', { kind: 'ServiceAccount', ...REVIEWER })
  await vault.api('POST', `auth/${mount}/config`, {
    kubernetes_host: cluster.url,
    kubernetes_ca_cert: cluster.caPem,
    token_reviewer_jwt: await cluster.createToken(REVIEWER.name, REVIEWER.namespace),
    disable_local_ca_jwt: true,
  })
}

async function trustKeys(vault: PodLogin['vault'], cluster: TestKubernetes, mount: string): Promise<void> {
  const everybody = { kind: 'Group', name: 'system:unauthenticated', apiGroup: 'rbac.authorization.k8s.io' }
  await bind(cluster, 'system:service-account-issuer-discovery', everybody)
  const config = { oidc_discovery_url: cluster.url, oidc_discovery_ca_pem: cluster.caPem }
  await vault.api('POST', `auth/${mount}/config`, config)
}

async function bind(cluster: TestKubernetes, role: string, subject: object): Promise<void> {
  await cluster.api('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
    metadata: { generateName: 'vault-' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
    subjects: [subject],
  })
}
