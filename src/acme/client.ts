import { isDeepStrictEqual } from 'node:util'
import type { Client } from 'acme-client'
import * as z from 'zod'
import { keyPem } from '../core/bundle.ts'
import { type ErrorCode, SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { accountKey } from './account.ts'
import type { AcmeOptions } from './options.ts'
import { type AcmeProblem, openTransport, parseProblem, type Transport } from './transport.ts'

/** An account at an ACME server, for the time of one order or request. */
export interface Acme extends AsyncDisposable {
  readonly client: Client
  readonly transport: Transport
  /** One step; what the server says against it becomes a SidecarError with `what` in front, of `code` unless its type says more. */
  step<T>(what: string, work: () => Promise<T>, code?: ErrorCode): Promise<T>
}

export type Place = Pick<AcmeOptions, 'directory' | 'caFile' | 'account'>

/** Opens the account, made where there is none. Throws ACME_*, or the reason of `signal`. */
export async function openAcme({ directory, caFile, account }: Place, signal: AbortSignal): Promise<Acme> {
  await using opened = new AsyncDisposableStack()
  const key = await accountKey(account.keyFile)
  const { Client } = await loadClient()
  const transport = opened.use(await openTransport(caFile, signal))
  const secret = keyPem(key)
  const client = new Client({
    directoryUrl: directory,
    accountKey: secret,
    ...(account.externalAccountBinding && { externalAccountBinding: bindingOf(account.externalAccountBinding) }),
  })
  opened.defer(() => {
    secret.fill(0)
  })
  let problem: AcmeProblem | undefined
  // acme-client would send by axios, which knows neither our signal nor a private CA; and it tells of a refusal in text only.
  Reflect.set(Reflect.get(client, 'http'), 'request', async (url: string, method: string, request: object = {}) => {
    const answer = await transport.send(url, method, Sent.parse(request))
    problem = answer.status >= 400 ? parseProblem(answer.data) : undefined
    return answer
  })
  const step: Acme['step'] = async (what, work, code = 'ACME_ORDER_INVALID') => {
    problem = undefined
    try {
      return await work()
    } catch (error) {
      signal.throwIfAborted()
      if (error instanceof SidecarError) throw error
      const where = problem ? `${directory} refuses ${what}` : `${directory} gives no answer of RFC 8555 to ${what}`
      throw refusal(where, code, problem, error)
    }
  }
  await openAccount({ client, step }, account)
  const held = opened.move()
  return { client, transport, step, [Symbol.asyncDispose]: () => held.disposeAsync() }
}

/** The account of the key, made where there is none (RFC 8555 §7.3.1), with the contacts of the config. */
async function openAccount({ client, step }: Pick<Acme, 'client' | 'step'>, account: Place['account']): Promise<void> {
  const { termsOfServiceAgreed, contact } = account
  const ask = <T>(work: () => Promise<T>) => step('the account', work, 'ACME_ACCOUNT')
  const found = await ask(() => client.createAccount({ onlyReturnExisting: true })).catch((error: unknown) => {
    // A rate limit, or a CA that cannot be reached, says nothing of the account.
    if (error instanceof AcmeRefusal) return undefined
    throw error
  })
  const wanted = contact.length > 0 ? { contact: [...contact] } : {}
  if (!found)
    await ask(() => client.createAccount({ ...wanted, ...(termsOfServiceAgreed && { termsOfServiceAgreed }) }))
  else if (contact.length > 0 && !isDeepStrictEqual(found.contact, contact))
    await ask(() => client.updateAccount(wanted))
}

/** RFC 5280 §5.3.1. */
const REASONS = { superseded: 4, cessationOfOperation: 5 } as const

/** RFC 8555 §7.6, by the account that ordered it. One that is revoked already, or has ended, is no error. */
export async function revokeAt({ client, step }: Acme, pem: string, why: keyof typeof REASONS): Promise<void> {
  await step('the revocation', () => client.revokeCertificate(pem, { reason: REASONS[why] })).catch(
    (error: unknown) => {
      const isOver = error instanceof AcmeRefusal && error.type === 'alreadyRevoked'
      if (!isOver) throw error
    },
  )
}

const Sent = z.object({ headers: z.record(z.string(), z.string()).default({}), data: z.unknown().optional() })

/** By the module loader CommonJS comes as a default export as well. */
async function loadClient() {
  const { Client } = await import('acme-client')
  return { Client }
}

function bindingOf({ kid, hmacKeyFile }: NonNullable<Place['account']['externalAccountBinding']>) {
  try {
    return { kid, hmacKey: readPlainFile(hmacKeyFile).toString('latin1').trim() }
  } catch (cause) {
    const message = `externalAccountBinding.hmacKeyFile ${hmacKeyFile} cannot be read (${systemCode(cause) ?? String(cause)})`
    throw new SidecarError('ACME_ACCOUNT', message, { cause })
  }
}

/** RFC 8555 §6.7, RFC 9773 §7.4. */
const BY_TYPE: Readonly<Record<string, ErrorCode>> = {
  accountDoesNotExist: 'ACME_ACCOUNT',
  externalAccountRequired: 'ACME_ACCOUNT',
  userActionRequired: 'ACME_ACCOUNT',
  invalidContact: 'ACME_ACCOUNT',
  unsupportedContact: 'ACME_ACCOUNT',
  unauthorized: 'ACME_ACCOUNT',
  badNonce: 'ACME_UNREACHABLE',
  serverInternal: 'ACME_UNREACHABLE',
}

function refusal(what: string, code: ErrorCode, problem: AcmeProblem | undefined, error: unknown): SidecarError {
  const said = problem ? `${problem.detail} (${problem.type})` : error instanceof Error ? error.message : String(error)
  const found = problem ? (BY_TYPE[problem.type] ?? code) : 'BAD_RESPONSE'
  return new AcmeRefusal(found, `${what}: ${said}`, problem?.type)
}

/** With the type of the problem, for those who can do without what was refused. */
export class AcmeRefusal extends SidecarError {
  readonly type: string | undefined

  constructor(code: ErrorCode, message: string, type: string | undefined) {
    super(code, message)
    this.type = type
  }
}
