import type { Clock } from '../clock.ts'
import { Secret } from '../core/secret.ts'
import { encodePath } from '../core/url-path.ts'
import { type ErrorCode, SidecarError } from '../errors.ts'
import type { Reach } from './addresses.ts'
import { createBreaker } from './breaker.ts'
import { limiter } from './limit.ts'
import type { Answer } from './replies.ts'
import type { Reply } from './transport.ts'

/** One request to Vault's API. */
export interface VaultRequest {
  /** Its name in metrics: few, and known beforehand. */
  readonly operation: string
  readonly method: 'GET' | 'POST' | 'LIST'
  /** Segments below `/v1/`, not yet encoded. */
  readonly path: readonly string[]
  readonly query?: Readonly<Record<string, string>>
  /** A Secret in it is sent as its value. */
  readonly body?: Readonly<Record<string, unknown>>
  readonly token?: Secret
  /** The answer is to come as a wrapping token that lives so long. */
  readonly wrapTtlMs?: number
}

export const nameOf = ({ method, path }: Pick<VaultRequest, 'method' | 'path'>) => `${method} ${path.join('/')}`

/** Carries a request whose path is encoded and whose headers are complete. */
export interface Wire {
  send(request: {
    /** Which of the addresses of Vault it goes to. */
    readonly address: string
    readonly method: 'GET' | 'POST' | 'LIST'
    readonly path: string
    readonly headers: Record<string, string>
    readonly json: unknown
    /** What no message may repeat of the answer. */
    readonly secrets: readonly Secret[]
    readonly signal: AbortSignal
  }): Promise<Reply>
  /** From here on requests go over new connections. */
  reconnect(): void
  close(): Promise<void>
}

export interface RequestDeps {
  readonly clock: Clock
  readonly onRequest: (event: { operation: string; status: string; durationMs: number }) => void
  /** How far Vault's clock is ahead of ours, ms; Vault tells whole seconds. */
  readonly onClockSkew: (skewMs: number) => void
  readonly reach: Reach
}

/** So many credentials and tokens are remembered, the latest first, to be masked in whatever comes back: more than are in use at a time. */
const MAX_SECRETS = 16
/** A standby that lags behind answers 412; it is asked this often, 100 to 500 ms apart. */
const TRIES_NOT_REPLICATED = 5
/** Those failures at connection level that open the circuit; any answer closes it. */
const CONNECTION_FAILURES: readonly ErrorCode[] = [
  'VAULT_UNREACHABLE',
  'VAULT_DNS',
  'VAULT_TLS',
  'VAULT_CLIENT_CERT',
  'VAULT_TIMEOUT',
]

/** Sends requests over one wire: a bounded number at a time, none while the circuit is open, each one measured, to the node that `reach` finds. */
export function createRequests(
  { concurrency, namespace }: { readonly concurrency: number; readonly namespace?: string | undefined },
  { clock, onRequest, onClockSkew, reach }: RequestDeps,
  wire: () => Promise<Wire>,
): (request: VaultRequest, signal: AbortSignal) => Promise<Answer> {
  const limit = limiter(concurrency)
  const breaker = createBreaker(clock, countedAs)
  let secrets: readonly Secret[] = []

  return async (request, signal) => {
    for (let tries = 1; ; tries += 1) {
      const reply = await limit(() => breaker.run(() => reach((address) => measured(request, address, signal))), signal)
      if (reply.status !== 412 || tries === TRIES_NOT_REPLICATED) return reply
      await clock.sleep(100 + clock.random() * 400, signal)
    }
  }

  async function measured(request: VaultRequest, address: string, signal: AbortSignal): Promise<Answer> {
    const { operation, method, body } = request
    secrets = distinct([...secretsIn(request), ...secrets]).slice(0, MAX_SECRETS)
    const { send } = await wire()
    const startedAt = clock.elapsed()
    const report = (status: string) => {
      const durationMs = clock.elapsed() - startedAt
      onRequest({ operation, status, durationMs })
      return durationMs
    }
    try {
      const headers = headersOf(request, namespace)
      const json = body && revealed(body)
      const reply = await send({ address, method, path: addressOf(request), headers, json, secrets, signal })
      const durationMs = report(String(reply.status))
      const sentAt = Date.parse(reply.date ?? '')
      if (!Number.isNaN(sentAt)) onClockSkew(sentAt + 500 - (clock.now() - durationMs / 2))
      return { ...reply, secrets }
    } catch (error) {
      report(error instanceof SidecarError ? error.reason : 'aborted')
      throw error
    }
  }
}

function countedAs(error: unknown): 'failure' | 'answer' | 'neither' {
  if (!(error instanceof SidecarError)) return 'neither'
  return CONNECTION_FAILURES.includes(error.code) ? 'failure' : 'answer'
}

const secretsIn = ({ token, body = {} }: VaultRequest): Secret[] =>
  [token, ...Object.values(body)].filter((value) => value instanceof Secret)

const distinct = (secrets: readonly Secret[]): Secret[] => [
  ...new Map(secrets.map((secret) => [secret.reveal(), secret])).values(),
]

const revealed = (body: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(body).map(([name, value]) => [name, value instanceof Secret ? value.reveal() : value]),
  )

const addressOf = ({ path, query }: VaultRequest) =>
  encodePath(path, 'in Vault') + (query ? `?${new URLSearchParams(query)}` : '')

/** X-Vault-Request is what a Vault Agent with `require_request_header` wants to see. */
const headersOf = ({ token, wrapTtlMs }: VaultRequest, namespace: string | undefined): Record<string, string> => ({
  'X-Vault-Request': 'true',
  'User-Agent': 'certferry',
  ...(token === undefined ? {} : { 'X-Vault-Token': token.reveal() }),
  ...(namespace === undefined ? {} : { 'X-Vault-Namespace': namespace }),
  ...(wrapTtlMs === undefined ? {} : { 'X-Vault-Wrap-TTL': `${Math.ceil(wrapTtlMs / 1000)}s` }),
})
