import * as z from 'zod'

/** Names of what is injected. */
export const SIDECAR = 'certferry'
export const INIT = 'certferry-init'
export const VOLUMES = {
  tls: 'certferry-tls',
  run: 'certferry-run',
  reload: 'certferry-reload',
  config: 'certferry-config',
  vaultTls: 'certferry-vault-tls',
  extraSecret: 'certferry-extra-secret',
} as const

/** The parts of a pod that the injector reads; everything else is carried along. https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ */

const VolumeMount = z.looseObject({ name: z.string(), mountPath: z.string() })

const Identity = z.looseObject({ runAsUser: z.int().nullish(), runAsGroup: z.int().nullish() })

export const Container = z.looseObject({
  name: z.string(),
  volumeMounts: z.array(VolumeMount).nullish(),
  securityContext: Identity.nullish(),
  ports: z.array(z.looseObject({ containerPort: z.int() })).nullish(),
})
export type Container = z.output<typeof Container>

const Volume = z.looseObject({ name: z.string() })
export type Volume = z.output<typeof Volume>

export const Pod = z.looseObject({
  metadata: z.looseObject({
    name: z.string().nullish(),
    generateName: z.string().nullish(),
    namespace: z.string().nullish(),
    annotations: z.record(z.string(), z.string()).nullish(),
  }),
  spec: z.looseObject({
    containers: z.array(Container).min(1, 'must have at least one container'),
    initContainers: z.array(Container).nullish(),
    volumes: z.array(Volume).nullish(),
    securityContext: Identity.extend({ supplementalGroups: z.array(z.int()).nullish() })
      .loose()
      .nullish(),
    shareProcessNamespace: z.boolean().nullish(),
    hostNetwork: z.boolean().nullish(),
    hostPID: z.boolean().nullish(),
    os: z.looseObject({ name: z.string() }).nullish(),
    nodeSelector: z.record(z.string(), z.string()).nullish(),
  }),
})
export type Pod = z.output<typeof Pod>

/** ` into pod web-1`. From a Deployment a pod has no name yet, only the beginning of one; a template has neither. */
export function nameOf({ metadata: { name, generateName } }: Pod): string {
  const known = name || (generateName ? `${generateName}…` : '')
  return known && ` into pod ${known}`
}

/** The containers that use the certificates: those that are named, or all. */
export const consumersOf = ({ spec }: Pod, named: readonly string[] | undefined): Container[] =>
  spec.containers.filter(({ name }) => named?.includes(name) ?? true)
