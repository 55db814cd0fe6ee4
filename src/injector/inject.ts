import { applyPatch } from 'rfc6902'
import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'
import {
  type Annotations,
  asksForInjection,
  INJECTED,
  PREFIX,
  RENDERED_CONFIG,
  RENDERED_VAULT_CA,
  STATUS,
} from './annotations.ts'
import { lacking, unfit } from './fitness.ts'
import { type Identity, identityFor } from './identity.ts'
import { Container, consumersOf, INIT, nameOf, type Pod, SIDECAR, VOLUMES } from './pod.ts'
import { needsApiServer, renderConfig, sendsSignal } from './sidecar-config.ts'
import { initContainer, mountsForApp, sidecarContainer, volumesFor } from './sidecar-container.ts'
import { fromVaultK8s, type Translated } from './vault-k8s.ts'
import { readAnnotations, type Trouble, type Wish } from './wish.ts'

/** What holds for all pods of a cluster. */
export interface InjectorContext {
  /** Of the sidecar, where the pod does not name another. */
  readonly image: string
  /** Whether the cluster knows native sidecars (Kubernetes 1.29). */
  readonly nativeSidecars: boolean
  /** Accept `vault.hashicorp.com/agent-inject*` as well. */
  readonly vaultAnnotations: boolean
  /** The injector's own; its pods are left alone. */
  readonly ownNamespace: string | undefined
  /** Annotations without prefix, for pods that do not say otherwise. */
  readonly defaults: Readonly<Record<string, string>>
}

export type Injection =
  | { readonly kind: 'injected'; readonly pod: Pod; readonly warnings: readonly string[] }
  | { readonly kind: 'skipped'; readonly why: string }

/**
 * The pod with its sidecar, as its annotations ask for. A pod that has it already only gets the mounts that containers added meanwhile lack,
 * so that it may be asked about again. Throws INJECTION_REFUSED with all that is wrong. Pure.
 */
export function injectPod(pod: Pod, context: InjectorContext): Injection {
  const asked = askedBy(pod.metadata.annotations ?? {}, context)
  if (!asked) return { kind: 'skipped', why: 'no annotation asks for a sidecar' }
  const { wish, troubles } = readAnnotations(asked.annotations, context.defaults)
  if (isInjected(pod)) return { kind: 'injected', pod: withMounts(pod, wish), warnings: [] }
  const identity = identityFor(pod, wish)
  const config = wish.certificates.length > 0 ? renderConfig(wish, identity) : undefined
  refuse(pod, [
    ...asked.troubles,
    ...[...troubles, ...(config?.troubles ?? [])].map((trouble) => withOrigin(trouble, asked)),
    ...(troubles.length + asked.troubles.length === 0 ? lacking(wish) : []),
    ...unfit(pod, wish),
    ...identity.troubles,
  ])
  const { pod: injected, warnings } = build(pod, { wish, context, identity, config: config?.yaml })
  return { kind: 'injected', pod: injected, warnings: [...asked.warnings, ...warnings] }
}

/** The annotations under our prefix, in compatibility mode also what those of vault-k8s come to; undefined where none of them asks for a sidecar. */
export function askedBy(annotations: Annotations, { vaultAnnotations }: InjectorContext): Translated | undefined {
  const all = (vaultAnnotations ? fromVaultK8s(annotations) : undefined) ?? {
    annotations,
    origins: {},
    warnings: [],
    troubles: [],
  }
  return asksForInjection(all.annotations) ? all : undefined
}

/** Whether the sidecar is in it; the mark alone may have been copied from another pod. */
const isInjected = ({ metadata, spec }: Pod): boolean =>
  metadata.annotations?.[STATUS] === INJECTED &&
  [...(spec.initContainers ?? []), ...spec.containers].some(({ name }) => name === SIDECAR || name === INIT)

/** Whoever wrote for vault-k8s does not know our annotation. */
function withOrigin({ annotation, message }: Trouble, { origins }: Translated): Trouble {
  const from = origins[annotation]
  return from === undefined ? { annotation, message } : { annotation: from, message: `${message} (as ${annotation})` }
}

function refuse(pod: Pod, troubles: readonly Trouble[]): void {
  if (troubles.length === 0) return
  const lines = troubles.map(({ annotation, message }) => `  ${quote(annotation, 120)}${annotation && ': '}${message}`)
  const count = troubles.length === 1 ? '1 problem' : `${troubles.length} problems`
  throw new SidecarError(
    'INJECTION_REFUSED',
    `certferry cannot be injected${nameOf(pod)}: ${count}\n${lines.join('\n')}`,
  )
}

interface Plan {
  readonly wish: Wish
  readonly context: InjectorContext
  readonly identity: Identity
  /** YAML; undefined where a ConfigMap holds it. */
  readonly config: string | undefined
}

function build(pod: Pod, plan: Plan): { pod: Pod; warnings: string[] } {
  const { wish, context, identity, config } = plan
  const isNative = wish.pod['native-sidecar'] ?? context.nativeSidecars
  const parts = { wish, identity, image: wish.pod.image ?? context.image, needsApiServer: needsApiServer(wish) }
  const isPlain = wish.pod['init-only'] || !isNative
  const init = isPlain
    ? patched(initContainer(parts), wish, pod, 'init-json-patch')
    : patched(sidecarContainer(parts, { isNative: true }), wish, pod, 'json-patch')
  const beside =
    isPlain && !wish.pod['init-only']
      ? [patched(sidecarContainer(parts, { isNative: false }), wish, pod, 'json-patch')]
      : []
  const { metadata, spec } = pod
  const others = spec.initContainers ?? []
  const isShared = wish.pod['share-process-namespace'] ?? (sendsSignal(wish) || spec.shareProcessNamespace)
  const injected: Pod = {
    ...pod,
    metadata: {
      ...metadata,
      annotations: { ...scrapeAnnotations(pod, wish), ...metadata.annotations, ...marks(wish, config) },
    },
    spec: {
      ...spec,
      initContainers: wish.pod['init-first'] ? [init, ...others] : [...others, init],
      containers: [...spec.containers, ...beside],
      volumes: [...(spec.volumes ?? []), ...volumesFor(parts)],
      ...(isShared && { shareProcessNamespace: true }),
      ...(identity.supplementalGroup !== undefined && {
        securityContext: {
          ...spec.securityContext,
          supplementalGroups: [
            ...new Set([...(spec.securityContext?.supplementalGroups ?? []), identity.supplementalGroup]),
          ],
        },
      }),
    },
  }
  return { pod: withMounts(injected, wish), warnings: [...identity.warnings, ...warningsFor(wish)] }
}

function warningsFor({ certificates, pod }: Wish): string[] {
  const unproven = certificates
    .filter(({ reload, verify }) => reload !== undefined && verify === undefined)
    .map(({ name }) => name)
  if (unproven.length === 0 || pod['init-only']) return []
  return [
    `certferry: nobody will know whether the app serves ${unproven.join(', ')}; add ${PREFIX}verify.${unproven[0]}, such as 127.0.0.1:8443`,
  ]
}

const marks = ({ pod }: Wish, config: string | undefined): Record<string, string> => ({
  [STATUS]: INJECTED,
  ...(config !== undefined && { [RENDERED_CONFIG]: config }),
  ...(pod['vault-ca'] !== undefined && { [RENDERED_VAULT_CA]: pod['vault-ca'] }),
})

/** Only where the app has none: a pod is scraped at one port. */
function scrapeAnnotations({ metadata }: Pod, { pod }: Wish): Record<string, string> {
  const isTaken = Object.keys(metadata.annotations ?? {}).some((key) => key.startsWith('prometheus.io/'))
  if (!pod.scrape || pod['init-only'] || isTaken) return {}
  return {
    'prometheus.io/scrape': 'true',
    'prometheus.io/port': String(pod['metrics-port']),
    'prometheus.io/path': '/metrics',
  }
}

/** The certificates, read-only, in every container that is to have them and does not yet; with `init-first` also in the init containers. */
function withMounts(pod: Pod, wish: Wish): Pod {
  const users = new Set(consumersOf(pod, wish.pod.containers).map(({ name }) => name))
  const mount = (container: Container): Container => ({
    ...container,
    volumeMounts: [...(container.volumeMounts ?? []), ...mountsForApp(wish)],
  })
  const lacks = ({ name, volumeMounts }: Container) =>
    name !== SIDECAR && name !== INIT && !(volumeMounts ?? []).some((each) => each.name === VOLUMES.tls)
  const { initContainers } = pod.spec
  return {
    ...pod,
    spec: {
      ...pod.spec,
      containers: pod.spec.containers.map((each) => (users.has(each.name) && lacks(each) ? mount(each) : each)),
      ...(wish.pod['init-first'] && wish.pod.containers === undefined && initContainers
        ? { initContainers: initContainers.map((each) => (lacks(each) ? mount(each) : each)) }
        : {}),
    },
  }
}

function patched(
  container: Container,
  { pod: annotations }: Wish,
  pod: Pod,
  name: 'json-patch' | 'init-json-patch',
): Container {
  const operations = annotations[name]
  if (!operations) return container
  const target = structuredClone(container)
  const trouble = (message: string) => refuse(pod, [{ annotation: `${PREFIX}${name}`, message }])
  for (const [index, operation] of operations.entries()) {
    const [error] = applyPatch(target, [operation])
    if (error)
      trouble(
        `operation ${index} (${operation.op} ${quote(operation.path, 80)}) does not fit the container: ${error.message}`,
      )
  }
  const result = Container.safeParse(target)
  if (!result.success || result.data.name !== container.name) trouble('leaves no container that is named as before')
  return result.data ?? container
}
