import { stringify } from 'yaml'
import { checkConfig } from '../config/config.ts'
import { isRecord, type Path, type Problem } from '../config/problems.ts'
import { PREFIX } from './annotations.ts'
import type { Trouble, Wish } from './wish.ts'

/** Where the volumes are mounted in the sidecar, besides that of the certificates. */
export const MOUNTS = {
  config: '/etc/certferry',
  run: '/run/certferry',
  /** Shared with the app, which may write there. */
  reload: '/run/certferry-reload',
  podToken: '/var/run/secrets/certferry',
  vaultTls: '/etc/certferry-vault-tls',
  extraSecret: '/etc/certferry-secret',
} as const

/** The files in them. */
export const PLACES = {
  config: `${MOUNTS.config}/config.yaml`,
  vaultCa: `${MOUNTS.config}/vault-ca.pem`,
  token: `${MOUNTS.config}/token`,
  kubernetes: `${MOUNTS.config}/kubernetes`,
  podToken: `${MOUNTS.podToken}/token`,
  /** Where `certferry reload-helper` in the app's container listens. */
  helper: `${MOUNTS.reload}/app.sock`,
} as const

/** Mode of the key where certferry and the app are different users of one group. */
const SHARED_MODE = '0640'

/**
 * The config that the sidecar will run, in YAML. `isShared`: others than the user of the sidecar read the files, by their group. What the
 * schema of the config says against it is told at the annotation that it comes from.
 */
export function renderConfig(
  wish: Wish,
  { isShared }: { readonly isShared: boolean },
): { yaml: string; troubles: Trouble[] } {
  const config = sidecarConfig(wish, isShared)
  const { problems } = checkConfig(config, {
    problem: (path, message, key) => ({ ...blame(wish, key === undefined ? path : [...path, key]), message }),
  })
  return { yaml: stringify(config, { lineWidth: 0 }), troubles: distinct(problems.map(toTrouble)) }
}

const toTrouble = ({ place, path, message }: Problem): Trouble => ({
  annotation: place,
  message: path === '' ? message.replace(/^is required$/, REQUIRED) : `${path}: ${message}`,
})

const REQUIRED = 'is required, here or as a default of the injector'

const distinct = (troubles: readonly Trouble[]): Trouble[] => [
  ...new Map(troubles.map((trouble) => [`${trouble.annotation} ${trouble.message}`, trouble])).values(),
]

/** Whether a certificate of the wish needs what the API server of Kubernetes offers. */
export const needsApiServer = ({ pod, certificates }: Wish): boolean =>
  pod.events ||
  certificates.some(
    ({ outputs, reload }) => hasKind(reload, 'rollout-restart') || hasKind(outputs, 'kubernetes-secret'),
  )

export const sendsSignal = ({ certificates }: Wish): boolean =>
  certificates.some(({ reload }) => hasKind(reload, 'signal'))

/** Whether a reload goes to a socket that the app's container makes. */
export const callsHelper = ({ certificates }: Wish): boolean =>
  certificates.some(
    ({ reload }) =>
      Array.isArray(reload) &&
      reload.some((each) => isRecord(each) && String(each.socket).startsWith(`${MOUNTS.reload}/`)),
  )

const hasKind = (list: unknown, kind: string): boolean =>
  Array.isArray(list) && list.some((each) => isRecord(each) && each.kind === kind)

function sidecarConfig(wish: Wish, isShared: boolean): Record<string, unknown> {
  const { pod, certificates } = wish
  const { 'log-level': level, 'log-format': format } = pod
  return {
    ...(asksVault(certificates) && { vault: vaultOf(wish) }),
    ...(needsApiServer(wish) && { kubernetes: kubernetesOf(wish) }),
    admin: { listen: `0.0.0.0:${pod['metrics-port']}`, socket: `${MOUNTS.run}/control.sock` },
    ...((level ?? format) && { log: { ...(level && { level }), ...(format && { format }) } }),
    volumes: [pod['volume-path']],
    certificates: certificates.map(({ name, source, outputs, ...certificate }) => ({
      name,
      source,
      outputs: isShared ? readableByGroup(outputs) : outputs,
      ...certificate,
    })),
  }
}

const asksVault = (certificates: Wish['certificates']): boolean =>
  certificates.some(({ source }) => isRecord(source) && String(source.kind).startsWith('vault-'))

function vaultOf({ pod }: Wish): Record<string, unknown> {
  const namespace = pod['vault-namespace'] ?? pod.namespace
  const mount = pod['auth-path']
  const hasTlsSecret = pod['vault-tls-secret'] !== undefined
  return {
    ...(pod['vault-address'] !== undefined && { address: pod['vault-address'] }),
    ...(namespace !== undefined && { namespace }),
    ...(pod['vault-server-name'] !== undefined && { serverName: pod['vault-server-name'] }),
    ...(pod['vault-ca'] !== undefined && { caFile: PLACES.vaultCa }),
    ...(hasTlsSecret && {
      clientCertFile: `${MOUNTS.vaultTls}/tls.crt`,
      clientKeyFile: `${MOUNTS.vaultTls}/tls.key`,
    }),
    auth: {
      kind: pod['auth-type'],
      ...(mount !== undefined && { mount }),
      ...(usesToken(pod['auth-type']) && withToken(pod)),
      ...pod['auth-config'],
    },
  }
}

/** These methods show Vault the token of the service account, and name a role. */
export const usesToken = (authType: string): boolean => authType === 'kubernetes' || authType === 'jwt'

const withToken = (pod: Wish['pod']) => ({
  ...(pod['vault-role'] !== undefined && { role: pod['vault-role'] }),
  tokenFile: tokenFileOf(pod),
})

const tokenFileOf = (pod: Wish['pod']): string =>
  pod['service-account-token-volume'] === undefined ? PLACES.token : PLACES.podToken

const kubernetesOf = ({ pod }: Wish): Record<string, unknown> => ({
  caFile: `${PLACES.kubernetes}/ca.crt`,
  tokenFile: `${PLACES.kubernetes}/token`,
  ...(pod.events && { events: true }),
})

/** Only where the annotation leaves the mode open. */
const readableByGroup = (outputs: unknown): unknown =>
  Array.isArray(outputs)
    ? outputs.map((output) =>
        isRecord(output) && output.directory !== undefined ? { mode: SHARED_MODE, ...output } : output,
      )
    : outputs

/** The annotation that a part of the config comes from, and what is left of the path below it. */
function blame({ certificates }: Wish, path: Path): { place: string; path: string } {
  const [top, index, part, ...rest] = path.map(String)
  if (top === 'certificates' && index !== undefined) {
    const name = String(certificates[Number(index)]?.name)
    if (part === 'reload' || part === 'verify') return { place: `${PREFIX}${part}.${name}`, path: rest.join('.') }
    return { place: `${PREFIX}certificate.${name}`, path: [part ?? [], rest].flat().join('.') }
  }
  const known = VAULT_ANNOTATIONS[path.map(String).join('.')]
  return {
    place: `${PREFIX}${known ?? (index === 'auth' ? 'auth-config' : 'inject')}`,
    path: known ? '' : path.join('.'),
  }
}

const VAULT_ANNOTATIONS: Readonly<Record<string, string>> = {
  vault: 'vault-address',
  'vault.address': 'vault-address',
  'vault.namespace': 'vault-namespace',
  'vault.serverName': 'vault-server-name',
  'vault.auth': 'auth-type',
  'vault.auth.kind': 'auth-type',
  'vault.auth.mount': 'auth-path',
  'vault.auth.role': 'vault-role',
}
