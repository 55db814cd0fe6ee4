import { createHash, createPrivateKey, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { type Bundle, toBundle } from '../core/bundle.ts'
import { pem } from '../core/csr.ts'
import { namesOf } from '../core/names.ts'
import { quote } from '../core/secret.ts'
import { Duration } from '../core/units.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import { heldSource } from './held.ts'
import { defineSource } from './source.ts'
import { decodeX509SvidResponse, type Svid, type X509SvidResponse } from './spiffe-message.ts'
import { type Endpoint, nameOf, streamX509Svids } from './spiffe-stream.ts'

/** As SPIFFE_ENDPOINT_SOCKET has it (SPIFFE_Workload_Endpoint.md §4). */
const Socket = z
  .string()
  .transform((text, { issues }): Endpoint => {
    const path = /^(?:unix:(?:\/\/)?)?(\/(?!\/).*)$/.exec(text)?.[1]
    if (path !== undefined) return { path }
    const [, host = '', port = ''] = /^tcp:\/\/(.+):(\d+)$/.exec(text) ?? []
    const address = host.replace(/^\[(.*)\]$/, '$1')
    if (isIP(address) && Number(port) > 0 && Number(port) < 65_536) return { host: address, port: Number(port) }
    issues.push({
      code: 'custom',
      input: text,
      message: 'must be unix:///path or tcp://address:port, such as unix:///run/spire/agent/public/api.sock',
    })
    return z.NEVER
  })
  .meta({
    description:
      'Socket of the Workload API: `unix:///path`, or `tcp://address:port`; `${SPIFFE_ENDPOINT_SOCKET}` takes it from the environment',
    examples: ['unix:///run/spire/agent/public/api.sock'],
  })

const Options = z
  .strictObject({
    socket: Socket,
    svid: z
      .string()
      .regex(/^spiffe:\/\/[a-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*$/, 'must be a SPIFFE ID, such as spiffe://example.org/web')
      .optional()
      .describe('SPIFFE ID of the one to take, where the process has several; the first one unless given'),
    hint: z.string().min(1).optional().describe('Instead: the hint of the one to take'),
    federated: z
      .boolean()
      .default(false)
      .describe(
        'Whether ca.crt also holds the roots of federated trust domains: each can then vouch for names of the others',
      ),
    poll: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
      .prefault('5m')
      .describe('How often to ask, besides being told by the open stream'),
  })
  .refine(({ svid, hint }) => svid === undefined || hint === undefined, 'takes svid or hint, not both')
type Options = z.output<typeof Options>

export const spiffe = defineSource({
  kind: 'spiffe',
  summary: 'An X.509-SVID from a SPIFFE Workload API, such as that of a SPIRE agent, which renews it and says so.',
  options: Options,
  create: (options, { clock: { now, random } }) => {
    const { socket, svid, hint, poll } = options
    const wanted = svid ?? (hint === undefined ? undefined : `hint ${hint}`)
    const origin = ['spiffe', nameOf(socket), ...(wanted === undefined ? [] : [wanted])].join(' ')
    /** Of the last answer, whoever got it. */
    let known: string | undefined
    const fetch = async (signal: AbortSignal): Promise<Bundle> => {
      const message = await firstMessage(socket, signal)
      try {
        known = digestOf(message)
        return bundleOf(pick(decode(message, socket), options), { origin, receivedAt: now() })
      } finally {
        message.fill(0)
      }
    }
    return heldSource({
      origin,
      place: nameOf(socket),
      poll,
      random,
      fetch,
      watch: (ring) =>
        listen(socket, (digest) => {
          if (digest === known) return
          known = digest
          ring()
        }),
      tell: ({ leaf }) => `${nameOf(socket)} gives ${namesOf(leaf).uri[0]},`,
    })
  },
})

/** The Workload API must answer at once. */
const PATIENCE_MS = 10_000

async function firstMessage(socket: Endpoint, signal: AbortSignal): Promise<Buffer> {
  const patience = AbortSignal.timeout(PATIENCE_MS)
  try {
    for await (const message of streamX509Svids(socket, AbortSignal.any([signal, patience]))) return message
  } catch (error) {
    signal.throwIfAborted()
    if (!patience.aborted) throw error
    throw silent(socket, `does not answer within ${PATIENCE_MS / 1000} s`)
  }
  throw silent(socket, 'ended the answer before it said anything')
}

const silent = (socket: Endpoint, what: string) =>
  new SidecarError('SPIFFE_UNREACHABLE', `the Workload API at ${nameOf(socket)} ${what}`)

const digestOf = (message: Buffer): string => createHash('sha256').update(message).digest('base64')

function decode(message: Buffer, socket: Endpoint): X509SvidResponse {
  try {
    return decodeX509SvidResponse(message)
  } catch (error) {
    const why = error instanceof RangeError ? error.message : 'it does not parse'
    throw new SidecarError('BAD_RESPONSE', `a message of the Workload API at ${nameOf(socket)} is malformed: ${why}`)
  }
}

/** The one that is asked for; else the first, which is the default identity (SPIFFE_Workload_API.md §5.3). */
function pick(response: X509SvidResponse, { socket, svid, hint, federated }: Options): Svid {
  const { svids } = response
  const found = svids.find((one) =>
    svid !== undefined ? one.spiffeId === svid : hint === undefined || one.hint === hint,
  )
  if (found) return federated ? { ...found, bundle: [...found.bundle, ...response.federated] } : found
  const has = svids.map((one) => `${quote(one.spiffeId)}${one.hint === '' ? '' : ` (hint ${quote(one.hint)})`}`)
  throw new SidecarError(
    'SPIFFE_SVID_MISSING',
    `the Workload API at ${nameOf(socket)} gives this process ${has.join(', ') || 'nothing'}, not ${svid ?? (hint === undefined ? 'an identity' : `one with hint ${hint}`)}`,
  )
}

function bundleOf(
  { spiffeId, chain, key, bundle }: Svid,
  { origin, receivedAt }: Pick<Bundle, 'origin' | 'receivedAt'>,
) {
  const certificates = (ders: readonly Buffer[]) => ders.map((der) => pem('CERTIFICATE', der)).join('')
  const made = toBundle({
    certificate: certificates(chain),
    issuers: [certificates(bundle)],
    key: keyOf(key, origin),
    origin,
    receivedAt,
  })
  const { uri } = namesOf(made.leaf)
  // X509-SVID.md §2: exactly one URI.
  if (uri.length !== 1 || uri[0] !== spiffeId)
    throw new SidecarError(
      'BAD_RESPONSE',
      `certificate ${made.serial} from ${origin} is for ${uri.map((one) => quote(one)).join(', ') || 'no URI'}, not for ${quote(spiffeId)}`,
    )
  return made
}

function keyOf(der: Buffer, origin: string): KeyObject {
  try {
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  } catch {
    // The cause is dropped on purpose: OpenSSL errors may quote the input.
    throw new SidecarError('BAD_RESPONSE', `the private key from ${origin} does not parse`)
  }
}

const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [500, 30_000]

/**
 * Keeps a stream open and says the digest of each answer, or the code of what keeps us from one. A stream that breaks is opened anew
 * (SPIFFE_Workload_API.md §4.2), after pauses that double until there is an answer again.
 */
function listen(socket: Endpoint, heard: (digest: string) => void): AsyncDisposable {
  const over = new AbortController()
  const listening = (async () => {
    for (let pauseMs = FIRST_PAUSE_MS; !over.signal.aborted; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        for await (const message of streamX509Svids(socket, over.signal)) {
          pauseMs = FIRST_PAUSE_MS
          heard(digestOf(message))
          message.fill(0)
          // Whoever pushes too fast is slowed down; each message holds everything.
          await sleep(FIRST_PAUSE_MS, undefined, { signal: over.signal })
        }
      } catch (error) {
        // An identity that was taken away is news; an agent that restarts is not.
        if (!over.signal.aborted && toSidecarError(error).code === 'SPIFFE_DENIED') heard('denied')
      }
      await sleep(pauseMs * (1 - Math.random() / 4), undefined, { signal: over.signal }).catch(() => {})
    }
  })()
  return {
    [Symbol.asyncDispose]: async () => {
      over.abort()
      await listening
    },
  }
}
