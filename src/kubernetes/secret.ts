import { createPrivateKey, X509Certificate } from 'node:crypto'
import * as z from 'zod'
import { fingerprintOf } from '../core/bundle.ts'
import { Secret } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'
import type { Kubernetes } from './client.ts'
import { readPod, workloadOf } from './owner.ts'

/** Under which the API server keeps what certferry applied. */
const MANAGER = 'certferry'
const MANAGED_BY = 'app.kubernetes.io/managed-by'
const CERTIFICATE = 'certferry.io/certificate'
const FINGERPRINT = 'certferry.io/fingerprint'
const SERIAL = 'certferry.io/serial'
const NOT_AFTER = 'certferry.io/not-after'
const POD = 'certferry.io/pod'

/** Where the copy goes, and what it carries besides. */
export interface SecretPlace {
  readonly namespace: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  /** With which it is deleted. */
  readonly owner: 'none' | 'pod' | 'workload'
}

export interface SecretContent {
  readonly certificate: string
  readonly serial: string
  readonly fingerprint: string
  readonly notBefore: number
  readonly notAfter: number
  /** PEM. */
  readonly chain: Buffer
  readonly key: Buffer
  readonly ca: Buffer
}

const Texts = z.record(z.string(), z.string()).default({})
const SecretObject = z.object({
  type: z.string().optional(),
  metadata: z.object({
    labels: Texts,
    annotations: Texts,
    managedFields: z.array(z.object({ manager: z.string().optional() })).default([]),
  }),
  data: Texts,
})
type SecretObject = z.output<typeof SecretObject>

/**
 * Sees to it that the Secret holds this, or what another replica put there that was issued later and is valid at `now`: of many replicas with
 * a certificate each the newest one is what readers get, and they do not take turns. Resolves with what was wrong before: it was `missing`, or had another `content`.
 * A Secret of somebody else is left as it is: FOREIGN_OBJECT.
 */
export async function applySecret(
  api: Kubernetes,
  place: SecretPlace,
  content: SecretContent & { readonly now: number },
  signal: AbortSignal,
): Promise<'missing' | 'content' | undefined> {
  const found = await readSecret(api, place, signal)
  const data = dataOf(content)
  if (found) {
    assertOurs(found, place)
    if (isSame(found, data)) return undefined
    if (found.metadata.annotations[POD] !== api.pod && isNewer(found, content)) return undefined
  }
  const owners = await ownersOf(api, place, signal)
  await apply(api, place, { data, owners, annotations: annotationsOf(api, content), dryRun: false }, signal)
  return found ? 'content' : 'missing'
}

/** What `applySecret` would meet, in a sentence; throws what it would. The API server checks the request, and does not carry it out. */
export async function inspectSecret(api: Kubernetes, place: SecretPlace, signal: AbortSignal): Promise<string> {
  const found = await readSecret(api, place, signal)
  if (found) assertOurs(found, place)
  const owners = await ownersOf(api, place, signal)
  const nothing = new Secret('')
  const data = { 'tls.crt': nothing, 'tls.key': nothing, 'ca.crt': nothing }
  await apply(api, place, { data, owners, annotations: {}, dryRun: true }, signal)
  const held = found?.metadata.annotations
  const state = held ? `is there, serial ${held[SERIAL]} until ${held[NOT_AFTER]}` : 'will be made'
  return `Secret ${place.namespace}/${place.name} ${state}`
}

async function readSecret(api: Kubernetes, place: SecretPlace, signal: AbortSignal): Promise<SecretObject | undefined> {
  try {
    return await api.ask({ method: 'GET', path: pathOf(place) }, SecretObject, signal)
  } catch (error) {
    if (error instanceof SidecarError && error.code === 'KUBERNETES_NOT_FOUND') return undefined
    throw error
  }
}

const pathOf = ({ namespace, name }: SecretPlace) => ['api', 'v1', 'namespaces', namespace, 'secrets', name]

function assertOurs({ metadata, type }: SecretObject, { namespace, name }: SecretPlace): void {
  const isOurs =
    metadata.labels[MANAGED_BY] === MANAGER || metadata.managedFields.some(({ manager }) => manager === MANAGER)
  // The type of a Secret cannot be changed.
  const why = !isOurs
    ? 'belongs to somebody else'
    : type === 'kubernetes.io/tls'
      ? undefined
      : `has the type ${type ?? 'Opaque'}, not kubernetes.io/tls`
  if (why)
    throw new SidecarError('FOREIGN_OBJECT', `Secret ${namespace}/${name} ${why}; delete it, or name another one`)
}

type Data = Readonly<Record<'tls.crt' | 'tls.key' | 'ca.crt', Secret>>

const dataOf = ({ chain, key, ca }: SecretContent): Data => ({
  'tls.crt': new Secret(chain.toString('base64')),
  'tls.key': new Secret(key.toString('base64')),
  'ca.crt': new Secret(ca.toString('base64')),
})

const isSame = ({ data }: SecretObject, wanted: Data): boolean =>
  Object.entries(wanted).every(([name, value]) => data[name] === value.reveal())

/** Whole, as another replica put it there, not issued before, and valid. */
function isNewer({ data, metadata }: SecretObject, { notBefore, certificate, now }: SecretContent & { now: number }) {
  const { annotations } = metadata
  try {
    const leaf = new X509Certificate(textOf(data['tls.crt']))
    const isWhole =
      annotations[CERTIFICATE] === certificate &&
      fingerprintOf(leaf) === annotations[FINGERPRINT] &&
      leaf.checkPrivateKey(createPrivateKey(textOf(data['tls.key'])))
    return isWhole && leaf.validFromDate.getTime() >= notBefore && leaf.validToDate.getTime() > now
  } catch {
    return false
  }
}

const textOf = (base64 = '') => Buffer.from(base64, 'base64')

const annotationsOf = (api: Kubernetes, { certificate, serial, fingerprint, notAfter }: SecretContent) => ({
  [CERTIFICATE]: certificate,
  [SERIAL]: serial,
  [FINGERPRINT]: fingerprint,
  [NOT_AFTER]: new Date(notAfter).toISOString(),
  [POD]: api.pod,
})

async function ownersOf(api: Kubernetes, { owner }: SecretPlace, signal: AbortSignal): Promise<object[]> {
  if (owner === 'none') return []
  const pod = await readPod(api, signal)
  if (owner === 'pod') return [{ apiVersion: 'v1', kind: 'Pod', name: pod.name, uid: pod.uid }]
  const { kind, name, uid } = await workloadOf(api, pod, signal)
  return [{ apiVersion: 'apps/v1', kind, name, uid }]
}

interface Applied {
  readonly data: Data
  readonly annotations: Readonly<Record<string, string>>
  readonly owners: readonly object[]
  readonly dryRun: boolean
}

/** Server-side apply: keys and annotations that others added stay theirs, those of certferry become its own again. */
async function apply(
  api: Kubernetes,
  place: SecretPlace,
  { data, annotations, owners, dryRun }: Applied,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name, labels } = place
  const body = {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name,
      namespace,
      labels: { ...labels, [MANAGED_BY]: MANAGER },
      annotations: { ...place.annotations, ...annotations },
      ...(owners.length > 0 && { ownerReferences: owners }),
    },
    type: 'kubernetes.io/tls',
    data,
  }
  const query = { fieldManager: MANAGER, force: 'true', ...(dryRun && { dryRun: 'All' }) }
  const contentType = 'application/apply-patch+yaml'
  await api.ask({ method: 'PATCH', path: pathOf(place), query, body, contentType }, z.object({}), signal)
}
