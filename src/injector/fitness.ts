import { suggestion } from '../core/near.ts'
import { PREFIX } from './annotations.ts'
import { consumersOf, INIT, type Pod, SIDECAR, VOLUMES } from './pod.ts'
import { MOUNTS, sendsSignal } from './sidecar-config.ts'
import type { Trouble, Wish } from './wish.ts'

/** Whoever asks for a sidecar must say for which certificate. */
export function lacking({ certificates, pod }: Wish): Trouble[] {
  if (certificates.length > 0 || pod.config !== undefined) return []
  const message = `asks for a sidecar without a certificate; add for example ${PREFIX}certificate.web: pki/issue/web?common_name=web.example.com`
  return [{ annotation: `${PREFIX}inject`, message }]
}

/** What makes a pod and a wish not fit each other. */
export const unfit = (pod: Pod, wish: Wish): Trouble[] => [
  ...unfitPlace(pod),
  ...contradictions(wish),
  ...unfitNames(pod, wish),
  ...unfitMounts(pod, wish),
  ...unfitProcesses(pod, wish),
]

function unfitPlace({ spec }: Pod): Trouble[] {
  const annotation = `${PREFIX}inject`
  const isWindows = spec.os?.name === 'windows' || spec.nodeSelector?.['kubernetes.io/os'] === 'windows'
  return [
    ...(isWindows
      ? [{ annotation, message: "the pod is for Windows, where certferry does not run; set it to 'false'" }]
      : []),
    ...(spec.hostNetwork ? [{ annotation, message: HOST_NETWORK }] : []),
  ]
}

const HOST_NETWORK =
  'the pod is in the network of its node (hostNetwork), where health and metrics of its sidecar would be open to the node and ports clash; run certferry on the node, or leave hostNetwork'

function contradictions({ pod, certificates: [first] }: Wish): Trouble[] {
  const { namespace, 'vault-namespace': vaultNamespace } = pod
  return [
    ...(first && pod.config !== undefined
      ? [
          {
            annotation: `${PREFIX}config`,
            message: `cannot be given together with ${PREFIX}certificate.${first.name}; the ConfigMap holds the whole config`,
          },
        ]
      : []),
    ...(namespace !== undefined && vaultNamespace !== undefined && namespace !== vaultNamespace
      ? [
          {
            annotation: `${PREFIX}namespace`,
            message: 'differs from vault-namespace, which means the same; give one of them',
          },
        ]
      : []),
  ]
}

function unfitNames({ spec }: Pod, { pod }: Wish): Trouble[] {
  const known = spec.containers.map(({ name }) => name)
  const strangers = (pod.containers ?? []).filter((name) => !known.includes(name))
  const all = [...known, ...(spec.initContainers ?? []).map(({ name }) => name)]
  const taken = [SIDECAR, INIT].filter((name) => all.includes(name))
  const volumes = (spec.volumes ?? []).map(({ name }) => name)
  const ours = Object.values(VOLUMES).filter((name) => volumes.includes(name))
  const token = pod['service-account-token-volume']
  return [
    ...strangers.map((name) => ({
      annotation: `${PREFIX}containers`,
      message: `the pod has no container "${name}"${suggestion(name, known) || `; there are: ${known.join(', ')}`}`,
    })),
    ...taken.map((name) => ({
      annotation: '',
      message: `a container of the pod is named ${name}, as the injected one would be; rename it`,
    })),
    ...ours.map((name) => ({
      annotation: '',
      message: `a volume of the pod is named ${name}, as an injected one would be; rename it`,
    })),
    ...(token !== undefined && !volumes.includes(token)
      ? [
          {
            annotation: `${PREFIX}service-account-token-volume`,
            message: `the pod has no volume "${token}"${suggestion(token, volumes)}`,
          },
        ]
      : []),
  ]
}

function unfitMounts(pod: Pod, wish: Wish): Trouble[] {
  const { spec } = pod
  const path = wish.pod['volume-path']
  const port = wish.pod['metrics-port']
  const everybody = [...spec.containers, ...(spec.initContainers ?? [])]
  const mounts = consumersOf(pod, wish.pod.containers).flatMap(({ name, volumeMounts }) =>
    (volumeMounts ?? [])
      .filter(({ mountPath }) => mountPath.replace(/\/$/, '') === path)
      .map((mount) => ({ name, mount })),
  )
  const ports = everybody.filter((container) =>
    (container.ports ?? []).some(({ containerPort }) => containerPort === port),
  )
  const own = Object.values(MOUNTS).find((each) => `${each}/`.startsWith(`${path}/`) || path.startsWith(`${each}/`))
  return [
    ...(own === undefined
      ? []
      : [
          {
            annotation: `${PREFIX}volume-path`,
            message: `is at ${own}, which the sidecar uses itself; choose another path`,
          },
        ]),
    ...mounts.map(({ name, mount }) => ({
      annotation: `${PREFIX}volume-path`,
      message: `container ${name} has the volume ${mount.name} at ${path}; choose another path`,
    })),
    ...ports.map(({ name }) => ({
      annotation: `${PREFIX}metrics-port`,
      message: `container ${name} has port ${port}; choose another one, for the containers of a pod share their ports`,
    })),
  ]
}

function unfitProcesses({ spec }: Pod, wish: Wish): Trouble[] {
  if (!sendsSignal(wish)) return []
  const annotation = `${PREFIX}share-process-namespace`
  const other = 'reload over http or with certferry reload-helper instead (docs/kubernetes.md)'
  if (wish.pod['share-process-namespace'] === false)
    return [
      {
        annotation,
        message: `is 'false', but a reload sends a signal, for which certferry must see the process; ${other}`,
      },
    ]
  if (spec.shareProcessNamespace === false)
    return [
      {
        annotation,
        message: `a reload sends a signal, but the pod says shareProcessNamespace: false; remove that, or ${other}`,
      },
    ]
  if (spec.hostPID)
    return [
      {
        annotation: '',
        message: `the pod sees all processes of its node (hostPID), so a signal could reach somebody else's; ${other}`,
      },
    ]
  return wish.pod['init-only']
    ? [
        {
          annotation: `${PREFIX}init-only`,
          message: 'leaves nobody there to send the signal of a reload; remove one of them',
        },
      ]
    : []
}
