import { isDeepStrictEqual } from 'node:util'
import * as z from 'zod'
import { NEVER } from '../core/content.ts'
import type { Lease, Reading } from '../core/snapshot.ts'
import { Duration } from '../core/units.ts'
import { Json } from '../core/values.ts'
import type { VaultSecret } from '../vault/client.ts'
import { unlessDenied } from '../vault/failures.ts'
import { jittered, poll, SecretPath, vaultName } from '../vault/paths.ts'
import { examinePolicy } from '../vault/policy.ts'
import { defineValue } from './value.ts'

/** A lease is renewed, and what cannot be renewed replaced, after this share of its life. */
const REFRESH = 2 / 3
/** A renewal that gives less than this share of the full life has met the max TTL. */
const CAPPED = 0.9

export const vaultRead = defineValue({
  kind: 'vault-read',
  summary:
    'Whatever a path gives: credentials with a lease (database, AWS, RabbitMQ, Consul, Kubernetes …), which is renewed as long as it can be, or anything else.',
  options: z.strictObject({
    vault: vaultName,
    path: SecretPath.describe('The whole path, such as database/creds/app'),
    parameters: z
      .record(z.string(), Json)
      .optional()
      .describe('Sent as the body of a POST; without them the path is read with GET'),
    poll: poll.describe('How often a lease is looked up, and what has none is read again; one request each'),
    overlap: Duration.optional().describe(
      'How long after the new credentials are in service the lease of the old ones is revoked; unless given, it runs out by itself',
    ),
  }),
  create: ({ vault: name, path, parameters, poll, overlap }, { vault, clock }) => {
    const connection = vault(name)
    const { address, secrets } = connection
    /** By the monotonic clock, which nobody sets back. */
    const refreshAt = new WeakMap<Reading['fields'], number>()
    const plan = (reading: Reading, restMs = restOf(reading)) => {
      refreshAt.set(reading.fields, clock.elapsed() + restMs)
      return reading
    }
    const untilRefresh = ({ fields }: Reading) => Math.max((refreshAt.get(fields) ?? 0) - clock.elapsed(), 0)

    const read = async (signal: AbortSignal) =>
      plan(readingOf(await secrets.read(path, parameters, signal), clock.now()))

    /** The same credentials for longer; undefined where their life cannot be prolonged, or not by much. */
    const prolong = async (reading: Reading, lease: Lease, signal: AbortSignal): Promise<Reading | undefined> => {
      if (!lease.renewable) return undefined
      // A policy that lets nobody renew is no reason to let the lease run out.
      const ttlMs = await unlessDenied(secrets.renewLease({ id: lease.id, ttlMs: lease.fullTtlMs }, signal))
      if (ttlMs === undefined || ttlMs < lease.fullTtlMs * CAPPED) return undefined
      return plan({ ...reading, receivedAt: clock.now(), notAfter: clock.now() + ttlMs })
    }

    return {
      origin: `vault-read ${address} ${path}${parameters === undefined ? '' : ` ${JSON.stringify(parameters)}`}`,
      issues: true,
      read,
      examine: (signal) => examinePolicy(connection, { method: parameters ? 'POST' : 'GET', path }, signal),
      afterMs: (reading) => Math.min(jittered(poll, clock.random), untilRefresh(reading)),
      look: async (reading, signal) => {
        const { lease } = reading
        if (!lease) {
          const now = await read(signal)
          return isSameButTtl(reading, now) ? plan(reading, Math.min(restOf(now), overdue(now))) : now
        }
        if (untilRefresh(reading) === 0) return prolong(reading, lease, signal)
        return (await secrets.isLeased(lease.id, signal)) === false ? undefined : reading
      },
      overlapMs: overlap,
      discard: async ({ lease }, signal) => {
        if (lease) await secrets.revokeLease(lease.id, signal)
      },
    }
  },
})

const readingOf = ({ fields, lease }: VaultSecret, now: number): Reading => ({
  fields,
  version: lease ? `since ${new Date(now).toISOString()}` : '',
  made: lease !== undefined,
  receivedAt: now,
  ...(lease
    ? {
        lease: { id: lease.id, renewable: lease.renewable, fullTtlMs: lease.ttlMs },
        notAfter: now + lease.ttlMs,
      }
    : { notAfter: NEVER }),
})

/** How long it is good for, ms. Static roles of the database engine have no lease: Vault changes them by the clock, and says in `ttl` when. */
function restOf({ fields, lease, receivedAt, notAfter }: Reading): number {
  if (lease) return (notAfter - receivedAt) * REFRESH
  const { ttl } = fields.reveal()
  return typeof ttl === 'number' && ttl > 0 ? (ttl + 1) * 1000 : Number.POSITIVE_INFINITY
}

/** Vault is a little late with what it changes by the clock. */
const overdue = ({ fields }: Reading) => (fields.reveal().ttl === 0 ? 5_000 : Number.POSITIVE_INFINITY)

/** That `ttl` runs down is no change. */
function isSameButTtl(before: Reading, now: Reading): boolean {
  const [{ ttl, ...old }, { ttl: left, ...latest }] = [before.fields.reveal(), now.fields.reveal()]
  return typeof ttl === 'number' && typeof left === 'number' && isDeepStrictEqual(old, latest)
}
