import type { X509Certificate } from 'node:crypto'
import { abortable } from '../abortable.ts'
import type { Clock } from '../clock.ts'
import { parseCertificates } from '../core/bundle.ts'
import { SidecarError, systemCode, toSidecarError } from '../errors.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import type { Emit } from '../observe/events.ts'
import { createServer, type Limits, listenOnPort, outlive, PUBLIC_LIMITS } from '../observe/http-server.ts'
import { keepTls } from '../observe/keep-tls.ts'
import { type Handler, json, type Routes, text } from '../observe/router.ts'
import { readPlainFile } from '../plain-file.ts'
import { type CaBundle, type CaBundleOptions, keepCaBundle } from './ca-bundle.ts'
import { contextOf } from './context.ts'
import type { InjectorContext } from './inject.ts'
import { watchNativeSidecars } from './native-sidecars.ts'
import type { InjectorOptions, PemFiles } from './options.ts'
import { review } from './review.ts'

export interface InjectorDeps {
  readonly clock: Clock
  readonly emit: Emit
  readonly env: Readonly<Record<string, string | undefined>>
  /** Of the certificate to serve, as the config in force has them. */
  readonly files: () => PemFiles
  /** Throws CONFIG_INVALID outside a cluster. */
  readonly kubernetes: () => Kubernetes
  /** For tests that cannot wait. */
  readonly limits?: Partial<Limits>
  readonly tlsCheckMs?: number
  readonly caBundle?: Omit<CaBundleOptions, 'webhookConfiguration'>
}

/** The admission webhook. */
export interface Injector extends AsyncDisposable {
  /** `https://0.0.0.0:8443`. */
  readonly url: string
  /** Why the API server cannot ask it; undefined while it can. */
  unready(): string | undefined
  /**
   * Takes the certificate in the files into service, once the API server trusts it. Throws INJECTOR_TLS and KUBERNETES_*; then the old one
   * stays in service, and the files are looked at again.
   */
  takeUp(signal: AbortSignal): Promise<void>
  /** The same; what goes wrong is told and tried again. Never rejects. */
  look(): Promise<void>
}

/** etcd takes 1.5 MiB, and a review may carry two objects. */
const LIMITS: Limits = {
  ...PUBLIC_LIMITS,
  bodyBytes: 3 * 1024 * 1024,
  // A dozen of the longest; a usual one has 10 KiB.
  bodiesBytes: 36 * 1024 * 1024,
  // The API server keeps connections for 90 s; were this side the first to close them, a review could be lost.
  idleMs: 120_000,
  // An API server has at most 200 changes under way by default, and there may be a few.
  connections: 1024,
  drainMs: 10_000,
  lingerMs: 2_000,
}
const TLS_CHECK_MS = 30_000
const FIRST_LOOK_MS = 2_000

/** Listens at once; handshakes fail until there is a certificate. Throws CONFIG_INVALID and ADDRESS_IN_USE. */
export async function openInjector(options: InjectorOptions, deps: InjectorDeps): Promise<Injector> {
  const { clock, emit } = deps
  await using opened = new AsyncDisposableStack()
  const fixed = contextOf(options, deps.env)
  const native = opened.use(nativeSidecars(options, deps))
  const { webhookConfiguration } = options
  const caBundle =
    webhookConfiguration === undefined
      ? undefined
      : opened.use(keepCaBundle(deps.kubernetes(), { ...deps.caBundle, webhookConfiguration }, { clock, emit }))
  const routes = routesOf({ emit, clock, context: () => ({ ...fixed, nativeSidecars: native.areKnown }) })
  const limits = { ...LIMITS, ...deps.limits }
  const { server } = opened.use(createServer({ routes, limits, emit, tls: {} }))
  if (!('setSecureContext' in server)) throw new TypeError('a server with tls is one of https')
  const stop = new AbortController()
  let why: string | undefined = 'the webhook has no certificate yet'
  const keeper = opened.use(
    keepTls(server, {
      files: deps.files,
      code: 'INJECTOR_TLS',
      checkMs: deps.tlsCheckMs ?? TLS_CHECK_MS,
      admit: (certificate) => admit(certificate, deps.files(), caBundle, stop.signal),
      onLoaded: (event) => {
        why = undefined
        emit('injector.tls-loaded', event)
      },
      onFailed: (event) => emit('injector.tls-failed', event),
    }),
  )
  opened.defer(() => stop.abort(new DOMException('certferry stops', 'AbortError')))
  const url = `https://${await listenOnPort(server, options.listen, 'injector.listen')}`
  outlive(server)
  emit('injector.listening', { address: url })
  // A certificate that was there before may need no rotation, and so nobody who says so.
  const first = setTimeout(() => void keeper.look(), FIRST_LOOK_MS).unref()
  opened.defer(() => clearTimeout(first))
  const held = opened.move()
  let closed: Promise<void> | undefined
  return {
    url,
    unready: () => why,
    look: async () => void (await keeper.look()),
    takeUp: async (signal) => {
      const failure = await abortable(keeper.look(), signal)
      if (failure) throw failure
    },
    [Symbol.asyncDispose]: () => {
      why = 'the webhook stops'
      closed ??= held.disposeAsync()
      return closed
    },
  }
}

function nativeSidecars({ nativeSidecars: wanted }: InjectorOptions, { kubernetes, clock, emit }: InjectorDeps) {
  if (wanted === 'auto') return watchNativeSidecars(kubernetes(), { clock, emit })
  return { areKnown: wanted, [Symbol.asyncDispose]: async () => {} }
}

/** Not before the API server trusts its issuer. */
async function admit(
  certificate: Buffer,
  { caFile }: PemFiles,
  caBundle: CaBundle | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (!caBundle) return
  const roots = readRoots(caFile)
  const last = parseCertificates(certificate.toString('latin1')).at(-1)
  // Between two reads the set may have been replaced.
  if (!last || !roots.some((root) => isAnchorOf(root, last)))
    throw new SidecarError('INJECTOR_TLS', `${caFile} does not belong to the certificate beside it`)
  await caBundle.trust(roots, signal)
}

function readRoots(file: string): X509Certificate[] {
  try {
    return parseCertificates(readPlainFile(file).toString('latin1'))
  } catch (cause) {
    const why = systemCode(cause) ?? toSidecarError(cause).message
    throw new SidecarError('INJECTOR_TLS', `${file} cannot be used: ${why}`, { cause })
  }
}

/** Where the source delivers no root, the topmost intermediate is the anchor. */
const isAnchorOf = (root: X509Certificate, last: X509Certificate) =>
  root.fingerprint256 === last.fingerprint256 || (last.checkIssued(root) && last.verify(root.publicKey))

interface RouteDeps {
  readonly emit: Emit
  readonly clock: Clock
  readonly context: () => InjectorContext
}

function routesOf({ emit, clock, context }: RouteDeps): Routes {
  const refuse = refuser(emit, clock)
  const mutate: Handler = ({ body, mediaType }) => {
    if (mediaType !== 'application/json')
      return refuse(
        415,
        `an AdmissionReview is sent as application/json, not as ${mediaType || 'nothing in particular'}`,
      )
    const startedAt = clock.elapsed()
    const asked = parseJson(body)
    if (!asked) return refuse(400, `the body (${body.length} characters) is no JSON`)
    try {
      const { verdict, answer } = review(asked.value, context())
      emit('injector.reviewed', { ...verdict, durationMs: clock.elapsed() - startedAt })
      return json(200, answer)
    } catch (thrown) {
      const { code, message } = toSidecarError(thrown)
      if (code !== 'BAD_REVIEW') throw thrown
      // Of a 415 the API server passes on what it says, of a 400 it does not (client-go, NewGenericServerResponse).
      return refuse(415, message)
    }
  }
  return new Map([
    ['/mutate', { POST: mutate }],
    ['/healthz', { GET: () => text(200, 'ok') }],
  ])
}

function parseJson(body: string): { readonly value: unknown } | undefined {
  try {
    return { value: JSON.parse(body) }
  } catch {
    return undefined
  }
}

const REFUSALS_MS = 60_000

/** Told once a minute: whoever reaches the port must not be able to fill the log. The API server shows the answer to who made the pod. */
function refuser(emit: Emit, clock: Clock) {
  let told = Number.NEGATIVE_INFINITY
  return (status: number, message: string) => {
    if (clock.elapsed() - told >= REFUSALS_MS) {
      told = clock.elapsed()
      emit('injector.request-refused', { status, message })
    }
    return text(status, message)
  }
}
