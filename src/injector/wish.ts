import { inWords, isRecord } from '../config/problems.ts'
import { suggestion } from '../core/near.ts'
import { quote } from '../core/secret.ts'
import { outputs } from '../outputs/index.ts'
import {
  type Annotations,
  CERTIFICATE_ANNOTATIONS,
  type CertificateAnnotation,
  Directory,
  isCertificateAnnotation,
  isLabel,
  MARKS,
  PodAnnotations,
  PREFIX,
} from './annotations.ts'
import { parseCertificate, parseReload, parseVerify } from './short-forms.ts'

/** What a pod asks for. */
export interface Wish {
  readonly pod: PodAnnotations
  /** Certificates of the sidecar's config, as plain values. */
  readonly certificates: readonly Record<string, unknown>[]
}

/** What is wrong with one annotation. */
export interface Trouble {
  /** With its prefix; empty for what is wrong with the pod. */
  readonly annotation: string
  readonly message: string
}

/** Reads all annotations under our prefix, over the defaults of the cluster (without prefix), and tells all that is wrong with them. */
export function readAnnotations(annotations: Annotations, defaults: Annotations): { wish: Wish; troubles: Trouble[] } {
  const own = Object.entries(annotations).flatMap(([key, value]) =>
    key.startsWith(PREFIX) && !MARKS.includes(key) ? [{ name: key.slice(PREFIX.length), value }] : [],
  )
  const whole = own.filter(({ name }) => !name.includes('.'))
  const { pod, troubles } = readPod({
    ...defaults,
    ...Object.fromEntries(whole.map(({ name, value }) => [name, value])),
  })
  const parts = own.filter(({ name }) => name.includes('.')).map(({ name, value }) => ({ ...splitName(name), value }))
  const certificates = readCertificates(parts, pod['volume-path'], (annotation, message) =>
    troubles.push({ annotation: `${PREFIX}${annotation}`, message }),
  )
  return { wish: { pod, certificates }, troubles }
}

/** The values that are wrong are told, and left at their defaults, so that what follows finds more to tell. */
function readPod(values: Annotations): { pod: PodAnnotations; troubles: Trouble[] } {
  const result = PodAnnotations.safeParse(values, { error: inWords })
  if (result.success) return { pod: result.data, troubles: [] }
  const troubles = result.error.issues.flatMap((issue) =>
    issue.code === 'unrecognized_keys'
      ? issue.keys.map((name) => ({ name, message: unknown(name, Object.keys(PodAnnotations.shape)) }))
      : [wrongValue(String(issue.path[0]), issue.message, values)],
  )
  const wrong = new Set(troubles.map(({ name }) => name))
  return {
    pod: PodAnnotations.parse(Object.fromEntries(Object.entries(values).filter(([name]) => !wrong.has(name)))),
    troubles: troubles.map(({ name, message }) => ({ annotation: `${PREFIX}${name}`, message })),
  }
}

const wrongValue = (name: string, message: string, values: Annotations) => ({
  name,
  message: `${message} (found ${quote(`"${values[name]}"`, 80)})`,
})

const unknown = (name: string, known: readonly string[]) =>
  `is no annotation of certferry${suggestion(name, known) || '; docs/kubernetes.md lists them all'}`

/** `certificate.web` → `certificate` and `web`; the name may hold no further dot. */
function splitName(name: string) {
  const dot = name.indexOf('.')
  return { family: name.slice(0, dot), name: name.slice(dot + 1), annotation: name }
}

interface Part {
  readonly family: string
  readonly name: string
  readonly annotation: string
  readonly value: string
}

type Tell = (annotation: string, message: string) => void

function readCertificates(parts: readonly Part[], volumePath: string, tell: Tell): Record<string, unknown>[] {
  for (const { family, annotation } of parts)
    if (!isCertificateAnnotation(family)) tell(annotation, unknown(family, Object.keys(CERTIFICATE_ANNOTATIONS)))
  const known = parts.filter(({ family }) => isCertificateAnnotation(family))
  return [...Map.groupBy(known, ({ name }) => name)]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, group]) => readCertificate(name, group, volumePath, tell) ?? [])
}

function readCertificate(name: string, parts: readonly Part[], volumePath: string, tell: Tell) {
  const of = (family: CertificateAnnotation) => parts.find((part) => part.family === family)
  const [first] = parts
  if (!isLabel(name)) {
    tell(
      first?.annotation ?? name,
      `"${quote(name, 60)}" is no name for a certificate: lower-case letters, digits and "-", at most 63`,
    )
    return undefined
  }
  const certificate = of('certificate')
  if (!certificate) {
    tell(first?.annotation ?? name, `speaks of a certificate that is not there; add ${PREFIX}certificate.${name}`)
    return undefined
  }
  const parse = <T>(part: Part | undefined, parser: (value: string) => T | string): T | undefined => {
    if (!part) return undefined
    const parsed = parser(part.value)
    if (typeof parsed !== 'string') return parsed
    tell(part.annotation, parsed)
    return undefined
  }
  const directory = parse(of('directory'), (value) => directoryIn(volumePath, value)) ?? {
    path: `${volumePath}/${name}`,
  }
  const options = parse(certificate, parseCertificate)
  const reload = parse(of('reload'), parseReload)
  const verify = parse(of('verify'), parseVerify)
  if (!options) return undefined
  return {
    ...options,
    outputs: withDirectory(options.outputs ?? [{ kind: 'pem' }], directory.path),
    ...(reload && { reload }),
    ...(verify && { verify }),
    name,
  }
}

/** Those that write files and do not say where do it in the directory of the certificate. */
const withDirectory = (list: unknown, directory: string): unknown =>
  Array.isArray(list)
    ? list.map((each) => (isRecord(each) && writesFiles(each.kind) ? { directory, ...each } : each))
    : list

const writesFiles = (kind: unknown): boolean =>
  outputs.definitions.some((definition) => definition.kind === kind && 'directory' in definition.options.shape)

/** Relative, or absolute and below the volume. */
function directoryIn(volumePath: string, value: string): { path: string } | string {
  const path = value.trim().startsWith('/') ? value.trim().replace(/\/$/, '') : `${volumePath}/${value.trim()}`
  if (!Directory.safeParse(path).success) return 'must be a path of plain letters, digits, "-", "_" and "."'
  if (!path.startsWith(`${volumePath}/`)) return `must be below volume-path, which is ${volumePath}`
  return { path }
}
