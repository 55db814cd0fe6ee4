import * as z from 'zod'
import { Secret } from '../core/secret.ts'
import { Fields, type Json } from '../core/values.ts'
import { type ErrorCode, SidecarError } from '../errors.ts'
import { unlessDenied } from './failures.ts'
import { type Answer, errorsOf } from './replies.ts'
import { nameOf, type VaultRequest } from './requests.ts'

/** What a path gave. */
export interface VaultSecret {
  readonly fields: Secret<Fields>
  readonly lease: VaultLease | undefined
}

export interface VaultLease {
  readonly id: string
  readonly ttlMs: number
  readonly renewable: boolean
}

/** A version of a secret in the key-value engine; of version 1 of the engine, which keeps one only, 0. */
export interface KvSecret {
  readonly fields: Secret<Fields>
  readonly version: number
}

/** Where a secret lies in a key-value engine. */
export interface KvPlace {
  readonly mount: string
  /** Below the mount, without `data/`. */
  readonly path: string
  /** The latest unless given; only in version 2 of the engine. */
  readonly version?: number | undefined
}

/** Secrets of any engine. Throws SECRET_MISSING, SECRET_DELETED, SECRET_DESTROYED, PERMISSION_DENIED, MOUNT_MISSING and what requests meet. */
export interface VaultSecrets {
  /** GET {path}, or POST with parameters. https://developer.hashicorp.com/vault/api-docs/secret/databases#generate-credentials */
  read(path: string, parameters: Parameters | undefined, signal: AbortSignal): Promise<VaultSecret>
  /** GET {mount}/data/{path} (version 2) or {mount}/{path} (version 1); which of them is asked once per mount. */
  readKv(place: KvPlace, signal: AbortSignal): Promise<KvSecret>
  /** POST sys/leases/renew: how long it lives now; undefined where the lease is gone, or cannot be renewed. */
  renewLease(lease: { readonly id: string; readonly ttlMs: number }, signal: AbortSignal): Promise<number | undefined>
  /** POST sys/leases/lookup: false where it is gone; undefined where the policy does not let us ask. */
  isLeased(id: string, signal: AbortSignal): Promise<boolean | undefined>
  /** POST sys/leases/revoke. */
  revokeLease(id: string, signal: AbortSignal): Promise<void>
}

export type Parameters = Readonly<Record<string, Json | Secret>>

/** Sends with the token and judges the answer; `refuse` says what a refusal means where that is not as for certificates. */
export type Call = <T>(
  request: VaultRequest,
  schema: z.ZodType<T>,
  signal: AbortSignal,
  refuse?: (reply: Answer) => SidecarError | undefined,
) => Promise<T>

export function createSecrets(call: Call): VaultSecrets {
  const engines = new Map<string, Promise<1 | 2>>()
  return {
    read: (path, parameters, signal) => {
      const operation = { operation: 'read', path: path.split('/') } as const
      const request: VaultRequest = parameters
        ? { ...operation, method: 'POST', body: parameters }
        : { ...operation, method: 'GET' }
      return call(request, SecretReply, signal, missing(nameOf(request)))
    },
    readKv: async (place, signal) => {
      const engine = await engineOf(place, signal)
      const request = kvRequest(engine, place)
      const refuse = missing(nameOf(request), place.version)
      return engine === 2 ? call(request, Kv2Reply, signal, refuse) : call(request, Kv1Reply, signal, refuse)
    },
    renewLease: ({ id, ttlMs }, signal) => {
      const body = { lease_id: id, increment: Math.ceil(ttlMs / 1000) }
      return unlessGone(call(leaseRequest('renew', body), RenewReply, signal, gone))
    },
    isLeased: (id, signal) => {
      const lookup = unlessGone(call(leaseRequest('lookup', { lease_id: id }), Anything, signal, gone))
      return unlessDenied(lookup.then((found) => found !== undefined))
    },
    revokeLease: async (id, signal) => {
      await unlessGone(call(leaseRequest('revoke', { lease_id: id, sync: true }), Anything, signal, gone))
    },
  }

  /** Whoever may read something below a mount may ask what it is. A failure is not remembered. */
  async function engineOf({ mount, path, version }: KvPlace, signal: AbortSignal): Promise<1 | 2> {
    if (version !== undefined) return 2
    // Vault answers by path: the refusal of another one, or its end, says nothing of this one.
    const known = await engines.get(mount)?.catch(() => undefined)
    if (known !== undefined) return known
    const segments = ['sys', 'internal', 'ui', 'mounts', ...mount.split('/'), ...path.split('/')]
    const request = { operation: 'mount', method: 'GET', path: segments } as const
    const asked = call(request, MountReply, signal, (reply) => refusedMount(reply, mount, path))
    engines.set(mount, asked)
    asked.catch(() => {
      if (engines.get(mount) === asked) engines.delete(mount)
    })
    return asked
  }
}

function kvRequest(engine: 1 | 2, { mount, path, version }: KvPlace): VaultRequest {
  const segments = [...mount.split('/'), ...(engine === 2 ? ['data'] : []), ...path.split('/')]
  const query = version === undefined ? {} : { query: { version: String(version) } }
  return { operation: 'kv-read', method: 'GET', path: segments, ...query }
}

const leaseRequest = (verb: 'renew' | 'lookup' | 'revoke', body: VaultRequest['body'] & object): VaultRequest => ({
  operation: `lease-${verb}`,
  method: 'POST',
  path: ['sys', 'leases', verb],
  body,
})

const SecretReply = z
  .object({
    lease_id: z.string().default(''),
    lease_duration: z.int().min(0).default(0),
    renewable: z.boolean().default(false),
    data: Fields,
  })
  // Taken for one, it would be replaced again and again without a pause.
  .refine(({ lease_id: id, lease_duration }) => id === '' || lease_duration > 0, {
    path: ['lease_duration'],
    error: 'the lease has ended already',
  })
  .transform(
    ({ lease_id: id, lease_duration, renewable, data }): VaultSecret => ({
      fields: new Secret(data),
      lease: id === '' ? undefined : { id, ttlMs: lease_duration * 1000, renewable },
    }),
  )

/** https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version */
const Kv2Reply = z
  .object({ data: z.object({ data: Fields, metadata: z.object({ version: z.int() }) }) })
  .transform(({ data }): KvSecret => ({ fields: new Secret(data.data), version: data.metadata.version }))

/** https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1#read-secret */
const Kv1Reply = z
  .object({ data: Fields })
  .transform(({ data }): KvSecret => ({ fields: new Secret(data), version: 0 }))

const MountReply = z
  .object({ data: z.object({ type: z.string(), options: z.object({ version: z.string().nullish() }).nullish() }) })
  .transform(({ data }): 1 | 2 => (data.options?.version === '2' ? 2 : 1))

const RenewReply = z.object({ lease_duration: z.int().min(0) }).transform(({ lease_duration }) => lease_duration * 1000)

/** Of an answer that is not read, or has no body. */
const Anything = z.unknown()

/** Of a version that was deleted Vault tells the metadata, with 404. */
const Gone = z.object({
  data: z.object({
    metadata: z.object({ version: z.int(), deletion_time: z.string(), destroyed: z.boolean() }),
  }),
})

/** What 404 and 405 mean where something is read. */
const missing =
  (request: string, version?: number) =>
  (reply: Answer): SidecarError | undefined => {
    const error = (code: ErrorCode, what: string) => new SidecarError(code, `${request} (${reply.status}): ${what}`)
    if (reply.status === 405) return error('SECRET_MISSING', `${errorsOf(reply)}; this path takes no such request`)
    if (reply.status === 400 && /no handler for route|unsupported path/.test(errorsOf(reply)))
      return error('MOUNT_MISSING', errorsOf(reply))
    if (reply.status !== 404) return undefined
    const { data: found } = Gone.safeParse(reply.body)
    if (!found) {
      const said = errorsOf(reply)
      if (said !== '') return error('MOUNT_MISSING', said)
      return error('SECRET_MISSING', version === undefined ? 'nothing lies there' : `there is no version ${version}`)
    }
    const { version: number, deletion_time: at, destroyed } = found.data.metadata
    return destroyed
      ? error('SECRET_DESTROYED', `version ${number} is destroyed`)
      : error('SECRET_DELETED', `version ${number} was deleted at ${at}`)
  }

function refusedMount(reply: Answer, mount: string, path: string): SidecarError | undefined {
  if (reply.status !== 403) return undefined
  const told = `Vault has no secrets engine at ${mount}/, or does not let this token read ${mount}/${path} (403)`
  return new SidecarError('PERMISSION_DENIED', told)
}

/** Vault words it in several ways, and answers 400 to all of them. */
const gone = (reply: Answer): SidecarError | undefined =>
  reply.status === 400 &&
  /lease (?:not found|expired|is not renewable)|invalid lease|not renewable/i.test(errorsOf(reply))
    ? new SidecarError('LEASE_GONE', errorsOf(reply))
    : undefined

async function unlessGone<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof SidecarError && error.code === 'LEASE_GONE') return undefined
    throw error
  }
}
