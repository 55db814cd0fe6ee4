import { RENDERED_CONFIG, RENDERED_VAULT_CA } from './annotations.ts'
import type { Identity } from './identity.ts'
import { type Container, INIT, SIDECAR, VOLUMES, type Volume } from './pod.ts'
import { callsHelper, MOUNTS, PLACES, usesToken } from './sidecar-config.ts'
import type { Wish } from './wish.ts'

/** What the containers and volumes are made of. */
export interface Parts {
  readonly wish: Wish
  readonly identity: Identity
  readonly image: string
  /** The sidecar talks to the API server of Kubernetes. */
  readonly needsApiServer: boolean
}

/** Seconds in which the first certificate must be there before the kubelet starts the sidecar anew. */
const STARTUP_SECONDS = 120

/** The sidecar; a native one is an init container that stays (Kubernetes 1.29), so the app starts after its startup probe has passed. */
export function sidecarContainer(parts: Parts, { isNative }: { readonly isNative: boolean }): Container {
  const port = parts.wish.pod['metrics-port']
  const get = (path: string) => ({ httpGet: { path, port } })
  return {
    ...containerOf(parts, SIDECAR, ['run', '-c', PLACES.config]),
    ...(isNative && { restartPolicy: 'Always' }),
    ports: [{ name: SIDECAR, containerPort: port, protocol: 'TCP' }],
    startupProbe: { ...get('/startupz'), periodSeconds: 1, failureThreshold: STARTUP_SECONDS },
    readinessProbe: { ...get('/readyz'), periodSeconds: 10 },
    livenessProbe: { ...get('/livez'), periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 3 },
  }
}

/** Fetches once before the app starts: where there are no native sidecars, and where nothing more is wanted. */
export const initContainer = (parts: Parts): Container =>
  containerOf(parts, INIT, ['once', '-c', PLACES.config, '--timeout', `${STARTUP_SECONDS}s`])

function containerOf({ wish, identity, image }: Parts, name: string, args: readonly string[]): Container {
  const { pod } = wish
  const pullPolicy = pod['image-pull-policy']
  return {
    name,
    image,
    ...(pullPolicy && { imagePullPolicy: pullPolicy }),
    args: [...args],
    env: POD_FIELDS.map(([variable, fieldPath]) => ({ name: variable, valueFrom: { fieldRef: { fieldPath } } })),
    resources: resourcesOf(pod),
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
      runAsNonRoot: identity.user !== 0,
      ...(identity.user !== undefined && { runAsUser: identity.user }),
      ...(identity.group !== undefined && { runAsGroup: identity.group }),
    },
    volumeMounts: mountsOf(wish),
  }
}

const POD_FIELDS = [
  ['POD_NAME', 'metadata.name'],
  ['POD_NAMESPACE', 'metadata.namespace'],
  ['POD_UID', 'metadata.uid'],
] as const

const RESOURCES = ['cpu', 'memory', 'ephemeral-storage'] as const

function resourcesOf(pod: Wish['pod']) {
  const of = (kind: 'requests' | 'limits') =>
    Object.fromEntries(
      RESOURCES.flatMap((resource) => {
        const quantity = pod[`${kind}-${resource}`]
        return quantity === undefined || quantity === 'none' ? [] : [[resource, quantity]]
      }),
    )
  return { requests: of('requests'), limits: of('limits') }
}

function mountsOf(wish: Wish) {
  const { pod } = wish
  const token = pod['service-account-token-volume']
  return [
    { name: VOLUMES.tls, mountPath: pod['volume-path'] },
    { name: VOLUMES.run, mountPath: MOUNTS.run },
    ...helperMounts(wish),
    { name: VOLUMES.config, mountPath: MOUNTS.config, readOnly: true },
    ...(token === undefined ? [] : [{ name: token, mountPath: MOUNTS.podToken, readOnly: true }]),
    ...(pod['vault-tls-secret'] === undefined
      ? []
      : [{ name: VOLUMES.vaultTls, mountPath: MOUNTS.vaultTls, readOnly: true }]),
    ...(pod['extra-secret'] === undefined
      ? []
      : [{ name: VOLUMES.extraSecret, mountPath: MOUNTS.extraSecret, readOnly: true }]),
  ]
}

/** The whole volume, never one file of it by subPath: such a mount would stay with the first certificate. */
export const mountsForApp = (wish: Wish) => [
  { name: VOLUMES.tls, mountPath: wish.pod['volume-path'], readOnly: true },
  ...helperMounts(wish),
]

/** Not in the volume of the certificates, which the app shall not write to. */
const helperMounts = (wish: Wish) => (callsHelper(wish) ? [{ name: VOLUMES.reload, mountPath: MOUNTS.reload }] : [])

/** In memory what holds a key; and one volume of everything that the sidecar reads. */
export function volumesFor({ wish, needsApiServer }: Parts): Volume[] {
  const { pod } = wish
  const secret = (name: string, secretName: string) => ({ name, secret: { secretName } })
  return [
    {
      name: VOLUMES.tls,
      emptyDir: { medium: 'Memory', ...(pod['volume-size'] !== 'none' && { sizeLimit: pod['volume-size'] }) },
    },
    { name: VOLUMES.run, emptyDir: SMALL },
    ...(callsHelper(wish) ? [{ name: VOLUMES.reload, emptyDir: SMALL }] : []),
    { name: VOLUMES.config, projected: { sources: sourcesOf(pod, needsApiServer) } },
    ...(pod['vault-tls-secret'] === undefined ? [] : [secret(VOLUMES.vaultTls, pod['vault-tls-secret'])]),
    ...(pod['extra-secret'] === undefined ? [] : [secret(VOLUMES.extraSecret, pod['extra-secret'])]),
  ]
}

/** For a socket. */
const SMALL = { medium: 'Memory', sizeLimit: '1Mi' }

/** https://kubernetes.io/docs/concepts/storage/projected-volumes/: the kubelet keeps the token fresh, and the config the annotation. */
function sourcesOf(pod: Wish['pod'], needsApiServer: boolean) {
  const file = (path: string, annotation: string) => ({
    path,
    fieldRef: { fieldPath: `metadata.annotations['${annotation}']` },
  })
  const items = [
    ...(pod.config === undefined ? [file('config.yaml', RENDERED_CONFIG)] : []),
    ...(pod['vault-ca'] === undefined ? [] : [file('vault-ca.pem', RENDERED_VAULT_CA)]),
  ]
  const ownToken = usesToken(pod['auth-type']) && pod['service-account-token-volume'] === undefined
  return [
    ...(pod.config === undefined
      ? []
      : [{ configMap: { name: pod.config, items: [{ key: 'config.yaml', path: 'config.yaml' }] } }]),
    ...(items.length > 0 ? [{ downwardAPI: { items } }] : []),
    ...(ownToken
      ? [{ serviceAccountToken: { audience: pod['token-audience'], expirationSeconds: 3600, path: 'token' } }]
      : []),
    ...(needsApiServer ? API_SERVER_SOURCES : []),
  ]
}

/** As the service account admission mounts them, but for the sidecar alone. */
const API_SERVER_SOURCES = [
  { serviceAccountToken: { expirationSeconds: 3607, path: 'kubernetes/token' } },
  { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'kubernetes/ca.crt' }] } },
]
