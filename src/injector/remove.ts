import { MARKS, STATUS } from './annotations.ts'
import { type Container, INIT, type Pod, SIDECAR, VOLUMES } from './pod.ts'

const OURS: readonly string[] = Object.values(VOLUMES)
const isOurs = ({ name }: { readonly name: string }) => name === SIDECAR || name === INIT

/** The pod without what was injected into it, so that another version can be; one without our mark as it is. Groups and a shared process namespace stay. */
export function removeInjection(pod: Pod): Pod {
  const { metadata, spec } = pod
  if (metadata.annotations?.[STATUS] === undefined) return pod
  const { initContainers, containers, volumes } = spec
  const sidecar = [...(initContainers ?? []), ...containers].find(({ name }) => name === SIDECAR)
  return {
    ...pod,
    metadata: { ...metadata, annotations: withoutMarks(metadata.annotations, sidecar?.ports?.[0]?.containerPort) },
    spec: {
      ...spec,
      containers: containers.filter((each) => !isOurs(each)).map(withoutMounts),
      ...(initContainers && { initContainers: initContainers.filter((each) => !isOurs(each)).map(withoutMounts) }),
      ...(volumes && { volumes: volumes.filter(({ name }) => !OURS.includes(name)) }),
    },
  }
}

/** Also those for Prometheus, where they speak of the sidecar. */
function withoutMarks(annotations: Record<string, string>, port: number | undefined): Record<string, string> {
  const isScrape = port !== undefined && annotations['prometheus.io/port'] === String(port)
  return Object.fromEntries(
    Object.entries(annotations).filter(
      ([key]) => !MARKS.includes(key) && !(isScrape && /^prometheus\.io\/(?:scrape|port|path)$/.test(key)),
    ),
  )
}

const withoutMounts = (container: Container): Container =>
  container.volumeMounts
    ? { ...container, volumeMounts: container.volumeMounts.filter(({ name }) => !OURS.includes(name)) }
    : container
