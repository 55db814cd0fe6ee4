import * as z from 'zod'
import type { Clock } from '../clock.ts'
import type { Secret } from '../core/secret.ts'
import { type ErrorCode, mayHaveIssued, SidecarError, toSidecarError } from '../errors.ts'
import { createReach } from './addresses.ts'
import { type AuthDeps, loginFrom } from './auth/auth.ts'
import { createAuth } from './auth/index.ts'
import { mayHaveArrived, unlessDenied } from './failures.ts'
import type { VaultOptions } from './options.ts'
import {
  CrlReply,
  type IssuedCertificate,
  IssuedReply,
  IssuerReply,
  IssuersReply,
  type PkiRequest,
  PkiRole,
  pkiPath,
  RevocationReply,
} from './pki.ts'
import { type Answer, errorsOf, isSuccess, isVaults, parseReply, refusal, warningsOf } from './replies.ts'
import { createRequests, nameOf, type Wire } from './requests.ts'
import { type Call, createSecrets, type KvPlace, type VaultSecret, type VaultSecrets } from './secrets.ts'
import { createSink, type TokenSink } from './sink.ts'
import { Capabilities, Health, Lookup, type TokenInfo, USABLE, type VaultHealth } from './sys.ts'
import { createTokens } from './token.ts'
import { createTokenRequests } from './token-requests.ts'

export {
  type IssuedCertificate,
  type KvPlace,
  type PkiRequest,
  type PkiRole,
  pkiPath,
  type TokenInfo,
  type VaultHealth,
  type VaultSecret,
}

/** All that certferry asks of Vault. Every call logs in when needed, fails fast with a SidecarError and stops when `signal` aborts. */
export interface Vault extends AsyncDisposable {
  readonly address: string
  readonly secrets: VaultSecrets
  /** POST {mount}/sign/{role}: a certificate for a CSR made here. */
  sign(request: PkiRequest, signal: AbortSignal): Promise<IssuedCertificate>
  /** POST {mount}/issue/{role}: certificate and key made by Vault. */
  issue(request: PkiRequest, signal: AbortSignal): Promise<IssuedCertificate>
  /** GET {mount}/issuer/{ref}/json: an issuer and its issuers as far as the mount knows them, in PEM. Needs no token. */
  caChain(mount: string, issuerRef: string, signal: AbortSignal): Promise<readonly string[]>
  /** LIST {mount}/issuers: the ids of all issuers. Needs no token. Throws MOUNT_MISSING. */
  issuers(mount: string, signal: AbortSignal): Promise<readonly string[]>
  /** GET {mount}/issuer/{ref}/crl/pem, or its delta: in PEM; undefined where there is none. Needs no token. */
  revocationList(
    place: { readonly mount: string; readonly issuer: string; readonly isDelta: boolean },
    signal: AbortSignal,
  ): Promise<string | undefined>
  /** GET {mount}/cert/{serial}: when a certificate of this mount was revoked, 0 where it was not; undefined where the mount keeps no such. Needs no token. */
  revokedAt(mount: string, serial: string, signal: AbortSignal): Promise<number | undefined>
  /** POST {mount}/revoke. What is revoked already, has ended, or was tidied away, is no error. */
  revoke(mount: string, certificatePem: string, signal: AbortSignal): Promise<void>
  /** GET sys/health, advice only: no attempt depends on it. Needs no token. */
  health(signal: AbortSignal): Promise<VaultHealth>
  /** GET auth/token/lookup-self: the token in use, after a login where there is none; undefined where the policy does not let us ask. */
  lookupSelf(signal: AbortSignal): Promise<TokenInfo | undefined>
  /**
   * POST sys/capabilities-self: what the token may do with a path, such as `update`; `root` for all, `deny` for nothing; undefined where the
   * policy does not let us ask.
   */
  capabilities(path: readonly string[], signal: AbortSignal): Promise<readonly string[] | undefined>
  /** GET {mount}/roles/{role}; undefined where the policy does not let us ask. Throws ROLE_MISSING, MOUNT_MISSING. */
  readRole(mount: string, role: string, signal: AbortSignal): Promise<PkiRole | undefined>
  /**
   * For the end of the process, before this is disposed of: POST auth/token/revoke-self where `revokeOnExit` asks for it and the token is
   * that of a login. What fails is told; it never takes longer than two seconds.
   */
  revokeToken(): Promise<void>
}

export interface VaultDeps {
  readonly clock: Clock
  /** Where the options stand in the config, for messages; by default `vault`. */
  readonly place?: string
  /** By default that of this process. */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly onRequest: (event: { operation: string; status: string; durationMs: number }) => void
  /** Something a person should know; the same text is told once. */
  readonly onWarning: (event: { message: string }) => void
  readonly onToken: (event: { expiresAt: number | undefined; renewable: boolean; how: 'login' | 'renewed' }) => void
  readonly onTokenFailed: (event: { code: ErrorCode; message: string; nextAt: number }) => void
  readonly onWrapReused: (event: { file: string }) => void
  /** How far Vault's clock is ahead of ours, ms, from the Date of each answer; accurate to a second. */
  readonly onClockSkew: (skewMs: number) => void
  /** Writes the file of `tokenSink`, at once and for good; without it none is written. */
  readonly writeToken?: (sink: TokenSink, token: Secret) => Promise<void>
}

/** One client per Vault, shared by all certificates: one login, one connection pool, one circuit breaker. Opens nothing before the first call. */
export function createVault(options: VaultOptions, deps: VaultDeps): Vault {
  const { clock, place = 'vault' } = deps
  let wire: Promise<Wire> | undefined
  const warn = warner(deps.onWarning)
  const reach = createReach(options.addresses, ({ from, to, why }) =>
    warn(`Vault cannot be used at ${from} (${why}); asked at ${to} instead`),
  )
  const send = createRequests(options, { ...deps, reach }, () => {
    wire ??= openWire(options)
    return wire
  })
  const ask = asker(send, clock)
  const { wrap, revoke } = createTokenRequests(send, clock)
  const sink =
    options.tokenSink && deps.writeToken && createSink(options.tokenSink, { clock, warn, wrap, write: deps.writeToken })
  const tokens = createTokens({
    auth: createAuth(options.auth, {
      ask,
      onWrapReused: deps.onWrapReused,
      reconnect: async () => (await wire)?.reconnect(),
      clientFiles: clientFilesOf(options),
      place: `${place}.auth`,
      clock,
      warn,
      env: deps.env ?? process.env,
    }),
    clock,
    renew: async (token, signal) => {
      const path = 'auth/token/renew-self'
      const reply = await ask({ operation: 'renew-self', method: 'POST', path, body: {}, token }, signal)
      return reply.ok ? loginFrom(reply) : undefined
    },
    onToken: deps.onToken,
    onTokenFailed: deps.onTokenFailed,
    onHeld: (token) => sink?.offer(token),
  })
  for (const address of options.addresses.filter((one) => new URL(one).protocol === 'http:'))
    warn(`${place}.address is ${address}: plain http is accepted on a loopback address only, and meant for tests`)

  /** With the token; after a 403 exactly once more, with a new one. */
  const call: Call = async (request, schema, signal, refuse) => {
    const token = await tokens.get(signal)
    const first = await issuing(send({ ...request, token }, signal))
    const denied = first.status === 403 && isVaults(first)
    if (!denied) return granted(first)
    const renewed = await tokens.replace(token, signal)
    return granted(await issuing(send({ ...request, token: renewed }, signal)))

    /** From here to an answer of Vault's own, it may have issued what was asked for. */
    function issuing<R>(sent: Promise<R>): Promise<R> {
      return sent.catch((error: unknown) => {
        throw error instanceof SidecarError && mayHaveArrived(error) ? mayHaveIssued(error) : error
      })
    }

    function granted(reply: typeof first): z.output<typeof schema> {
      if (!isSuccess(reply)) {
        const refused = (isVaults(reply) ? refuse?.(reply) : undefined) ?? refusal(reply, nameOf(request), clock.now())
        // A page of a gateway says nothing of what Vault did behind it.
        throw isVaults(reply) ? refused : mayHaveIssued(refused)
      }
      for (const warning of warningsOf(reply).filter(isNews)) warn(`${request.path.join('/')}: ${warning}`)
      try {
        return parseReply(reply, schema, nameOf(request))
      } catch (error) {
        throw mayHaveIssued(error)
      }
    }
  }

  const certificate = (verb: 'sign' | 'issue') => async (request: PkiRequest, signal: AbortSignal) => {
    const path = pkiPath(verb, request)
    const issued = await call({ operation: verb, method: 'POST', path, body: request.body }, IssuedReply, signal)
    if (issued.isLeased) warn(`${path.join('/')}: ${leased(options)}`)
    return issued
  }

  return {
    address: options.address,
    secrets: createSecrets(call),
    sign: certificate('sign'),
    issue: certificate('issue'),
    caChain: async (mount, issuerRef, signal) => {
      const path = [...mount.split('/'), 'issuer', issuerRef, 'json']
      const request = { operation: 'ca-chain', method: 'GET', path } as const
      const reply = await send(request, signal)
      if (!isSuccess(reply)) throw refusal(reply, nameOf(request), clock.now())
      return parseReply(reply, IssuerReply, nameOf(request))
    },
    issuers: async (mount, signal) => {
      const path = [...mount.split('/'), 'issuers']
      const request = { operation: 'list-issuers', method: 'LIST', path } as const
      const reply = await send(request, signal)
      if (!isSuccess(reply)) throw refusal(reply, nameOf(request), clock.now())
      return parseReply(reply, IssuersReply, nameOf(request))
    },
    revocationList: async ({ mount, issuer, isDelta }, signal) => {
      const path = [...mount.split('/'), 'issuer', issuer, 'crl', ...(isDelta ? ['delta'] : [])]
      const request = { operation: 'read-crl', method: 'GET', path } as const
      const reply = await send(request, signal)
      // Of an issuer whose key is elsewhere there is none; Vault says so with 500.
      if (reply.status === 404 || /unable to find CRL for issuer/.test(errorsOf(reply))) return undefined
      if (!isSuccess(reply)) throw refusal(reply, nameOf(request), clock.now())
      return parseReply(reply, CrlReply, nameOf(request))
    },
    revokedAt: async (mount, serial, signal) => {
      const path = [...mount.split('/'), 'cert', (serial.match(/../g) ?? []).join(':')]
      const request = { operation: 'revoked', method: 'GET', path } as const
      const reply = await send(request, signal)
      if (reply.status === 404 && isVaults(reply)) return undefined
      if (!isSuccess(reply)) throw refusal(reply, nameOf(request), clock.now())
      return parseReply(reply, RevocationReply, nameOf(request))
    },
    revoke: async (mount, certificate, signal) => {
      const path = [...mount.split('/'), 'revoke']
      await unlessEnded(
        call({ operation: 'revoke', method: 'POST', path, body: { certificate } }, z.unknown(), signal, ended),
      )
    },
    health: async (signal) => {
      const request = { operation: 'health', method: 'GET', path: ['sys', 'health'] } as const
      const reply = await send(request, signal)
      return { ...parseReply(reply, Health, nameOf(request)), usable: USABLE.includes(reply.status) }
    },
    lookupSelf: (signal) => {
      const request = { operation: 'lookup-self', method: 'GET', path: ['auth', 'token', 'lookup-self'] } as const
      // What only a person wants to know no policy has to allow.
      return unlessDenied(call(request, Lookup, signal))
    },
    capabilities: (path, signal) => {
      const body = { paths: [path.join('/')] }
      const request = { operation: 'capabilities', method: 'POST', path: ['sys', 'capabilities-self'], body } as const
      return unlessDenied(call(request, Capabilities, signal))
    },
    readRole: (mount, role, signal) => {
      const request = { operation: 'read-role', method: 'GET', path: [...mount.split('/'), 'roles', role] } as const
      return unlessDenied(call(request, PkiRole, signal))
    },
    revokeToken: async () => {
      if (!options.revokeOnExit) return
      // A login that is under way ends first: it would leave another token behind.
      await tokens[Symbol.asyncDispose]()
      const token = tokens.surrender()
      if (!token) return
      await revoke(token).catch((error: unknown) => {
        warn(`the token was not revoked, and lives on to its end: ${toSidecarError(error).message}`)
      })
    },
    [Symbol.asyncDispose]: async () => {
      await tokens[Symbol.asyncDispose]()
      await sink?.[Symbol.asyncDispose]()
      await (await wire)?.close()
    },
  }
}

const clientFilesOf = ({ clientCertFile: certFile, clientKeyFile: keyFile }: VaultOptions) =>
  certFile === undefined || keyFile === undefined ? undefined : { certFile, keyFile }

/** Names go into the CSR and the request, for roles of either kind; that Vault ignores one of the two is no news. */
const isNews = (warning: string) => !/ field was provided but the role is set with "use_csr_/.test(warning)

/** Those with which Vault refuses a login; anything else is trouble on the way. */
const REFUSED: readonly number[] = [400, 403, 404, 405]

/** Vault keeps no more of what has ended, and refuses to revoke it. */
const ended = (reply: Answer): SidecarError | undefined =>
  /already expired|not found|tidied/i.test(errorsOf(reply))
    ? new SidecarError('LEASE_GONE', errorsOf(reply))
    : undefined

async function unlessEnded(answer: Promise<unknown>): Promise<void> {
  await answer.catch((error: unknown) => {
    if (!(error instanceof SidecarError) || error.code !== 'LEASE_GONE') throw error
  })
}

const leased = ({ revokeOnExit }: VaultOptions) =>
  `the role leases its certificates (generate_lease=true), so Vault revokes each with the login that asked for it${revokeOnExit ? ', which vault.revokeOnExit ends at every stop' : ''}`

/** The requests that auth methods send: their own token or none, and a refusal is theirs to judge. */
const asker =
  (send: ReturnType<typeof createRequests>, clock: Clock): AuthDeps['ask'] =>
  async ({ path, ...rest }, signal) => {
    const request = { ...rest, path: path.split('/') }
    const name = nameOf(request)
    const reply = await send(request, signal)
    const refused = REFUSED.includes(reply.status) && isVaults(reply)
    if (!refused && !isSuccess(reply)) throw refusal(reply, name, clock.now())
    return {
      ok: !refused,
      status: reply.status,
      told: `Vault refused ${name} (${reply.status}): ${errorsOf(reply) || 'without a reason'}`,
      parse: (schema) => parseReply(reply, schema, name),
    }
  }

/** Tells each text once, as it may come with every certificate. */
function warner(onWarning: VaultDeps['onWarning']): (message: string) => void {
  const told = new Set<string>()
  return (message) => {
    if (told.has(message) || told.size >= 100) return
    told.add(message)
    onWarning({ message })
  }
}

/**
 * node-vault over our transport. Loaded at the first request: a restart with good certificates on disk needs neither. Of node-vault only
 * `request` is used; its own transport ignores signals, its renewal timers overflow, and its debug output and errors hold secrets.
 */
async function openWire(options: VaultOptions): Promise<Wire> {
  const [{ default: nodeVault }, { createTransport }] = await Promise.all([
    import('node-vault'),
    import('./transport.ts'),
  ])
  const transport = createTransport(options)
  type Sent = Parameters<Wire['send']>[0] & { readonly uri: string }
  // Told 200 whatever the status is, node-vault hands the reply through, headers and all.
  const carry = async ({ address, uri, ...request }: Sent) => ({
    statusCode: 200,
    body: await transport.request({ ...request, url: address + uri }),
    request: { path: '' },
  })
  const api = nodeVault({
    'request-promise': { defaults: () => carry },
    debug: () => undefined,
    // By which it checks that a request has a path and a method, as our types do.
    tv4: Object.assign(() => true, { validate: () => true }),
    commands: {},
  })
  // It falls back to VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE and VAULT_PREFIX; but here the config alone decides, and each request says
  // which address it goes to.
  Object.assign(api, { endpoint: '', token: '', namespace: '', pathPrefix: '' })
  return {
    send: ({ path, ...rest }) => api.request({ ...rest, path: `/${path}` }),
    reconnect: () => transport.reconnect(),
    close: () => transport.close(),
  }
}
