import * as z from 'zod'
import { inWords, isRecord } from '../config/problems.ts'
import { suggestion } from '../core/near.ts'
import { Label, ObjectName } from '../kubernetes/options.ts'
import { parseYaml } from './annotation-yaml.ts'

export const PREFIX = 'certferry.io/'

/** What the injector itself writes; on a pod that is to be injected they mean nothing. */
export const STATUS = `${PREFIX}status`
export const RENDERED_CONFIG = `${PREFIX}rendered-config`
export const RENDERED_VAULT_CA = `${PREFIX}rendered-vault-ca`
export const INJECTED = 'injected'

export const MARKS: readonly string[] = [STATUS, RENDERED_CONFIG, RENDERED_VAULT_CA]

/** Annotations are text: YAML reads a bare true as something else, and the API server refuses that. */
const Flag = z
  .enum(['true', 'false'], { error: "must be 'true' or 'false'" })
  .transform((text) => text === 'true')
  .meta({ examples: ['true'] })

const text = (pattern: RegExp, error: string) => z.string().trim().regex(pattern, error)

/** Names of containers, volumes and certificates. */
export const isLabel = (name: string): boolean => Label.safeParse(name).success
/** https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ */
const Quantity = text(
  /^(?:\d+(?:\.\d+)?(?:[mkMGTPE]|[KMGTPE]i)?|none)$/,
  "must be a quantity such as 10m, 96Mi or '1', or none",
)
const whole = (most: number) =>
  text(/^\d{1,10}$/, 'must be a whole number')
    .transform(Number)
    .refine((number) => number <= most, `must be at most ${most}`)
/** https://kubernetes.io/docs/concepts/containers/images/#image-names */
const Image = text(/^[\w][\w.:/@-]*$/, 'must be the reference of an image such as registry.example.com/certferry:0.1.0')
/** Config: a directory of plain characters. */
export const Directory = text(
  /^(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]*)+\/?$/,
  'must be an absolute path of plain letters, digits, "-", "_" and "."',
).transform((path) => path.replace(/\/$/, ''))
const Names = z
  .string()
  .transform((list) => list.split(',').map((name) => name.trim()))
  .refine((names) => names.every(isLabel), 'must be names of containers, with commas between them')
/** RFC 6901, without the names by which JavaScript reaches what all objects share. */
const path = z
  .string()
  .regex(/^(?:\/(?:[^~/]|~[01])*)*$/, 'must be a JSON pointer such as /env/-')
  .refine((pointer) => !/\/(?:__proto__|constructor|prototype)(?:\/|$)/.test(pointer), 'names nothing of a container')
/** RFC 6902 §4. */
const Operation = z.discriminatedUnion('op', [
  z.object({ op: z.literal('add'), path, value: z.unknown() }),
  z.object({ op: z.literal('replace'), path, value: z.unknown() }),
  z.object({ op: z.literal('test'), path, value: z.unknown() }),
  z.object({ op: z.literal('remove'), path }),
  z.object({ op: z.literal('move'), path, from: path }),
  z.object({ op: z.literal('copy'), path, from: path }),
])
const JsonPatch = z
  .string()
  .transform((source, context) => {
    try {
      return JSON.parse(source)
    } catch {
      context.addIssue({ code: 'custom', message: 'is not JSON' })
      return z.NEVER
    }
  })
  .pipe(
    z.array(Operation, { error: 'must be a list of operations: [{"op": "add", "path": "/…", "value": …}] (RFC 6902)' }),
  )
const YamlMap = z.string().transform((source, context) => {
  const parsed = parseYaml(source)
  if (typeof parsed !== 'string' && isRecord(parsed.value)) return parsed.value
  context.addIssue({ code: 'custom', message: typeof parsed === 'string' ? parsed : 'must be a YAML map' })
  return z.NEVER
})

/** Annotations of the pod as a whole, without the prefix. Each may have a default in the injector's config. */
export const PodAnnotations = z.strictObject({
  inject: Flag.optional().describe(
    "'false': leave this pod alone. 'true' says what any annotation of a certificate says already",
  ),
  config: ObjectName.optional().describe(
    'ConfigMap with a whole config in the key config.yaml, instead of annotations for certificates',
  ),
  'vault-address': text(/^https?:\/\/\S+$/, 'must be an address such as https://vault.vault.svc:8200')
    .optional()
    .describe('Address of Vault'),
  'vault-role': text(/^\S+$/, 'must be the name of a role')
    .optional()
    .describe('Role to log in with, of kubernetes and jwt'),
  'vault-namespace': text(/^\S+$/, 'must be a namespace path').optional().describe('Vault Enterprise namespace'),
  namespace: text(/^\S+$/, 'must be a namespace path').optional().describe('The same as vault-namespace'),
  'vault-ca': text(/^-----BEGIN CERTIFICATE-----[\s\S]*-----END CERTIFICATE-----$/, 'must be certificates in PEM')
    .optional()
    .describe('CA certificates that may sign for Vault, in PEM'),
  'vault-server-name': text(/^\S+$/, 'must be a host name').optional().describe("Name expected in Vault's certificate"),
  'vault-tls-secret': ObjectName.optional().describe(
    'Secret of type kubernetes.io/tls that certferry presents to Vault',
  ),
  'auth-type': text(/^[a-z-]+$/, 'must be the kind of an auth method')
    .prefault('kubernetes')
    .describe('Kind of the auth method'),
  'auth-path': text(/^\/?[\w./-]+$/, 'must be a mount path such as kubernetes')
    .transform((path) => path.replace(/^\/?(?:auth\/)?|\/$/g, ''))
    .optional()
    .describe('Where the auth method is mounted, with or without auth/'),
  'auth-config': YamlMap.optional().describe('Further options of the auth method, as in the config: a YAML map'),
  'token-audience': text(/^\S+$/, 'must be an audience')
    .prefault('vault')
    .describe('Audience of the service account token for Vault'),
  'service-account-token-volume': Label.optional().describe(
    'Volume of the pod that holds the service account token in the file token, instead of one made for it',
  ),
  'extra-secret': ObjectName.optional().describe('Secret to mount at /etc/certferry-secret, such as for auth-config'),
  image: Image.optional().describe('Image of the sidecar'),
  'image-pull-policy': z
    .enum(['Always', 'IfNotPresent', 'Never'], { error: 'must be Always, IfNotPresent or Never' })
    .optional()
    .describe('Pull policy of the image'),
  'requests-cpu': Quantity.prefault('10m').describe('CPU to reserve; none for nothing'),
  'requests-memory': Quantity.prefault('96Mi').describe('Memory to reserve'),
  'requests-ephemeral-storage': Quantity.optional().describe('Ephemeral storage to reserve'),
  'limits-cpu': Quantity.optional().describe('CPU limit'),
  'limits-memory': Quantity.prefault('160Mi').describe('Memory limit'),
  'limits-ephemeral-storage': Quantity.optional().describe('Ephemeral storage limit'),
  'run-as-user': whole(2 ** 31 - 1)
    .optional()
    .describe("User id of the sidecar; by default that of the app's containers"),
  'run-as-group': whole(2 ** 31 - 1)
    .optional()
    .describe('Group id of the sidecar'),
  'run-as-same-user': Flag.optional().describe(
    "'true' insists on the user of the app's containers, also root; 'false' never takes it",
  ),
  'set-security-context': Flag.prefault('true').describe(
    "'false' leaves user and group to the platform, such as OpenShift",
  ),
  containers: Names.optional().describe('Containers that get the certificates, with commas between; all by default'),
  'volume-path': Directory.prefault('/tls').describe('Where the certificates are mounted'),
  'volume-size': Quantity.prefault('4Mi').describe('Most that the volume may hold'),
  'init-only': Flag.prefault('false').describe('Only an init container, that fetches once: no sidecar, no renewal'),
  'init-first': Flag.prefault('false').describe(
    "Before the pod's own init containers, which then find the certificates",
  ),
  'native-sidecar': Flag.optional().describe(
    "'false': an init container and an ordinary container instead of a native sidecar; the cluster decides by default",
  ),
  'share-process-namespace': Flag.optional().describe(
    'Whether the containers see each other; by default where a reload sends a signal',
  ),
  'metrics-port': whole(65_535).prefault('9443').describe('Port of health and metrics'),
  scrape: Flag.prefault('true').describe('Adds prometheus.io/scrape, port and path where the pod has none'),
  events: Flag.prefault('false').describe('Kubernetes Events on the pod; its service account needs the right'),
  'log-level': z
    .enum(['debug', 'info', 'warn', 'error'], { error: 'must be debug, info, warn or error' })
    .optional()
    .describe('Least level that is logged'),
  'log-format': z
    .enum(['json', 'pretty'], { error: 'must be json or pretty' })
    .optional()
    .describe('Format of the log'),
  'json-patch': JsonPatch.optional().describe('JSON Patch (RFC 6902) on the container of the sidecar'),
  'init-json-patch': JsonPatch.optional().describe('JSON Patch on the init container, where there is one besides'),
})
export type PodAnnotations = z.output<typeof PodAnnotations>

/** Config `injector.defaults`: annotations without prefix, as text, for all pods that do not say otherwise. */
export const Defaults = z.record(z.string(), z.string()).check((context) => {
  const issues =
    PodAnnotations.omit({ inject: true, config: true }).safeParse(context.value, { error: inWords }).error?.issues ?? []
  for (const issue of issues) {
    const keys = issue.code === 'unrecognized_keys' ? issue.keys : []
    for (const key of keys)
      context.issues.push({
        code: 'custom',
        input: context.value,
        path: [key],
        message: `is no annotation that can have a default${suggestion(key, Object.keys(PodAnnotations.shape))}`,
      })
    if (keys.length === 0)
      context.issues.push({ code: 'custom', input: context.value, path: issue.path, message: issue.message })
  }
})

/** Annotations of one certificate: `certificate.web`, `reload.web`, … */
export const CERTIFICATE_ANNOTATIONS = {
  certificate:
    'What to obtain: pki/issue/web?common_name=web.example.com (a path of Vault with its parameters), or a certificate of the config in YAML, without its name',
  reload:
    'How the app is told: SIGHUP:nginx, an http URL, rollout-restart, helper (certferry reload-helper at /run/certferry-reload/app.sock), or reload of the config in YAML',
  verify: 'Proof that the app serves it: 127.0.0.1:8443, or verify of the config in YAML',
  directory: 'Where its files are, below volume-path, unless its outputs say; by default a directory of its name there',
} as const
export type CertificateAnnotation = keyof typeof CERTIFICATE_ANNOTATIONS
export const isCertificateAnnotation = (name: string): name is CertificateAnnotation =>
  Object.hasOwn(CERTIFICATE_ANNOTATIONS, name)

export type Annotations = Readonly<Record<string, string>>

/** Whether any annotation asks for a sidecar: one of a certificate, a config, or plain `inject`. */
export function asksForInjection(annotations: Annotations): boolean {
  const own = Object.keys(annotations).filter((key) => key.startsWith(PREFIX))
  if (annotations[`${PREFIX}inject`] !== undefined) return annotations[`${PREFIX}inject`] !== 'false'
  return own.some((key) => !MARKS.includes(key))
}
