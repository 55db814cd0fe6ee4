import { parse, parseAllDocuments } from 'yaml'
import * as z from 'zod'

const Mapping = <T extends z.ZodType>(value: T) => z.record(z.string(), value).default({})

const Compose = z.object({
  services: z.record(
    z.string(),
    z.object({
      image: z.string(),
      pid: z.string().optional(),
      network_mode: z.string().optional(),
      read_only: z.boolean().default(false),
      cap_drop: z.array(z.string()).default([]),
      volumes: z.array(z.string()).default([]),
      configs: z.array(z.object({ source: z.string(), target: z.string() })).default([]),
      depends_on: Mapping(z.object({ condition: z.string() })),
    }),
  ),
  volumes: Mapping(z.null()),
  configs: Mapping(z.object({ content: z.string() })),
})
type Compose = z.output<typeof Compose>

/** A compose file, its merge keys (`<<`) resolved. */
export const composeFile = (text: string): Compose => Compose.parse(parse(text, { merge: true }))

/** The services that a service leans on: it starts after them, or shares a namespace with them. */
export const servicesOf = ({
  pid,
  network_mode: network,
  depends_on: before,
}: Compose['services'][string]): string[] => [
  ...Object.keys(before),
  ...[pid, network].filter((place) => place !== undefined).map((place) => place.replace(/^service:/, '')),
]

const HttpProbe = z.object({ httpGet: z.object({ path: z.string(), port: z.union([z.string(), z.int()]) }) })
const Container = z.object({
  name: z.string(),
  args: z.array(z.string()).default([]),
  restartPolicy: z.string().optional(),
  ports: z.array(z.object({ containerPort: z.int() })),
  startupProbe: HttpProbe.optional(),
  livenessProbe: HttpProbe.optional(),
  readinessProbe: z.object({ httpGet: HttpProbe.shape.httpGet.optional() }).optional(),
  resources: z.object({ limits: z.object({ memory: z.string() }) }),
  securityContext: z.record(z.string(), z.unknown()),
  volumeMounts: z.array(z.looseObject({ name: z.string(), mountPath: z.string(), readOnly: z.boolean().optional() })),
})
const Pod = z.object({
  shareProcessNamespace: z.boolean(),
  automountServiceAccountToken: z.boolean(),
  terminationGracePeriodSeconds: z.int().default(30),
  securityContext: z.object({
    runAsNonRoot: z.boolean(),
    runAsUser: z.int(),
    fsGroup: z.int(),
    seccompProfile: z.object({ type: z.string() }),
  }),
  initContainers: z.tuple([Container]),
  containers: z.tuple([Container]),
  volumes: z.array(z.object({ name: z.string(), emptyDir: z.object({ medium: z.string().optional() }).optional() })),
})
const Manifest = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('ConfigMap'),
    metadata: z.object({ name: z.string() }),
    data: z.record(z.string(), z.string()),
  }),
  z.object({
    kind: z.literal('Deployment'),
    spec: z.object({
      template: z.object({
        metadata: z.object({ annotations: z.record(z.string(), z.string()) }),
        spec: Pod,
      }),
    }),
  }),
  z.object({ kind: z.enum(['Service', 'ServiceAccount']) }),
])

/** The manifests of a deployment with one sidecar and one application. */
export function deploymentFile(text: string) {
  const documents = parseAllDocuments(text)
  if ('empty' in documents) throw new Error('no manifest')
  const all = documents.map((document) => Manifest.parse(document.toJS()))
  const deployment = all.find((manifest) => manifest.kind === 'Deployment')
  if (!deployment) throw new Error('no Deployment')
  const { metadata, spec: pod } = deployment.spec.template
  const [sidecar] = pod.initContainers
  const [app] = pod.containers
  return { pod, sidecar, app, annotations: metadata.annotations, all }
}

/** One entry of a ConfigMap. */
export function configMapText(
  { all }: Pick<ReturnType<typeof deploymentFile>, 'all'>,
  name: string,
  key: string,
): string {
  const found = all.find((manifest) => manifest.kind === 'ConfigMap' && manifest.metadata.name === name)
  const text = found?.kind === 'ConfigMap' ? found.data[key] : undefined
  if (text === undefined) throw new Error(`no ${key} in ConfigMap ${name}`)
  return text
}

/** The settings of a systemd unit, all sections together: a name may be given more than once. */
export function unitFile(text: string): Map<string, string[]> {
  const settings = new Map<string, string[]>()
  for (const [, name = '', value = ''] of text.matchAll(/^(\w+)=(.*)$/gm))
    settings.set(name, [...(settings.get(name) ?? []), value])
  return settings
}
