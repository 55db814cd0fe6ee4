import * as z from 'zod'
import { quote } from '../core/secret.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import { type InjectorContext, injectPod } from './inject.ts'
import { patchOf } from './patch.ts'
import { Pod } from './pod.ts'

/** https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#request */
const AdmissionReview = z.looseObject({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.looseObject({
    uid: z.string().min(1),
    resource: z.looseObject({ group: z.string().default(''), resource: z.string() }),
    subResource: z.string().default(''),
    namespace: z.string().default(''),
    operation: z.string(),
    dryRun: z.boolean().default(false),
    object: z.unknown(),
  }),
})

/** What became of a request: for metrics and the log. */
export interface Verdict {
  readonly result: 'injected' | 'unchanged' | 'skipped' | 'denied'
  readonly namespace: string
  /** As far as the object has a name. */
  readonly pod: string
  readonly dryRun: boolean
  /** Why it was denied or skipped. */
  readonly why: string | undefined
}

export interface Reviewed {
  readonly verdict: Verdict
  /** AdmissionReview of admission.k8s.io/v1, to be sent as JSON. */
  readonly answer: object
}

/** Answers an AdmissionReview; the same for a dry run, as nothing else happens. Throws BAD_REVIEW for what is none, or of another version. */
export function review(body: unknown, context: InjectorContext): Reviewed {
  const { request } = parseReview(body)
  const { uid, namespace, dryRun, object } = request
  const about = { namespace, dryRun, pod: podName(object) }
  const skip = (why: string, warnings: readonly string[] = []): Reviewed => ({
    verdict: { ...about, result: 'skipped', why },
    answer: answer({ uid, allowed: true, ...(warnings.length > 0 && { warnings }) }),
  })
  const { resource, subResource, operation } = request
  if (resource.group !== '' || resource.resource !== 'pods' || subResource !== '')
    return skip(`not a pod but ${[resource.resource, subResource].filter(Boolean).join('/')}`, [
      `certferry: only pods are injected; the webhook is asked about ${resource.resource}, which its rules should leave out`,
    ])
  if (operation !== 'CREATE') return skip(`operation ${operation}`)
  if (context.ownNamespace !== undefined && namespace === context.ownNamespace) return skip('own namespace')
  try {
    const injection = injectPod(parsePod(object), context)
    if (injection.kind === 'skipped') return skip(injection.why)
    const patch = patchOf(Object(object), injection.pod)
    return {
      verdict: { ...about, result: patch.length > 0 ? 'injected' : 'unchanged', why: undefined },
      answer: answer({ uid, allowed: true, ...patched(patch), ...warned(injection.warnings) }),
    }
  } catch (thrown) {
    const { code, message } = toSidecarError(thrown)
    if (code !== 'INJECTION_REFUSED') throw thrown
    return {
      verdict: { ...about, result: 'denied', why: message },
      answer: answer({ uid, allowed: false, status: { code: 422, reason: 'Invalid', message } }),
    }
  }
}

function parseReview(body: unknown) {
  const parsed = AdmissionReview.safeParse(body)
  if (parsed.success) return parsed.data
  const version = z.looseObject({ apiVersion: z.string(), kind: z.string() }).safeParse(body).data
  const what = version ? `${quote(version.apiVersion, 60)} ${quote(version.kind, 60)}` : 'something else'
  const [issue] = parsed.error.issues
  const isOther = version?.apiVersion !== 'admission.k8s.io/v1' || version.kind !== 'AdmissionReview'
  throw new SidecarError(
    'BAD_REVIEW',
    isOther
      ? `this is ${what}, not an AdmissionReview of admission.k8s.io/v1; set admissionReviewVersions: [v1] in the webhook configuration`
      : `the AdmissionReview is not as documented: ${issue?.path.join('.')}: ${issue?.message}`,
  )
}

export function parsePod(object: unknown): Pod {
  const parsed = Pod.safeParse(object)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new SidecarError('INJECTION_REFUSED', `this is no pod: ${issue?.path.join('.')}: ${issue?.message}`)
}

function podName(object: unknown): string {
  const { metadata } =
    z
      .object({ metadata: z.object({ name: z.string().optional(), generateName: z.string().optional() }) })
      .safeParse(object).data ?? {}
  return quote(metadata?.name ?? metadata?.generateName ?? '', 260)
}

const answer = (response: object) => ({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response })

const patched = (patch: readonly object[]) =>
  patch.length === 0 ? {} : { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') }

/** Kubernetes asks for warnings of at most 120 characters where possible, and cuts what is over 4096 in all. */
const warned = (warnings: readonly string[]) => (warnings.length > 0 ? { warnings } : {})
