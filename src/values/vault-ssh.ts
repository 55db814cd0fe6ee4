import { createPublicKey } from 'node:crypto'
import * as z from 'zod'
import { NEVER } from '../core/content.ts'
import { generateKey } from '../core/key.ts'
import { Secret } from '../core/secret.ts'
import type { Reading } from '../core/snapshot.ts'
import { readSshCertificate, type SshCertificate, sshPublicKey } from '../core/ssh.ts'
import { Duration } from '../core/units.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { MountPath, PathSegment, vaultName } from '../vault/paths.ts'
import { examinePolicy } from '../vault/policy.ts'
import { defineValue } from './value.ts'

/** A signed certificate is replaced after this share of its life. */
const REPLACE = 2 / 3
/** One without an end, and a key that may have changed, are looked at this often. */
const LOOK_MS = 3_600_000

const Signed = z.object({ signed_key: z.string().min(1) })

export const vaultSsh = defineValue({
  kind: 'vault-ssh',
  summary: 'A signed SSH certificate for a host or a user: POST {mount}/sign/{role}; renewed at 2/3 of its life.',
  options: z.strictObject({
    vault: vaultName,
    mount: MountPath.prefault('ssh').describe('Where the engine is mounted'),
    role: PathSegment.describe('Role of the engine'),
    type: z.enum(['host', 'user']).default('user').describe('What the certificate is for'),
    principals: z.array(z.string().min(1)).default([]).describe('Names of the host, or users to log in as'),
    ttl: Duration.optional().describe('Lifetime asked for; by default that of the role'),
    extensions: z
      .record(z.string(), z.string())
      .optional()
      .describe('Such as permit-pty: ""; by default those of the role'),
    publicKeyFile: z
      .string()
      .regex(/^\/[^\0]*$/, 'must be an absolute path')
      .optional()
      .describe(
        'The public key to sign, such as /etc/ssh/ssh_host_ed25519_key.pub; else a new ECDSA key is made each time, in the field private_key',
      ),
  }),
  create: ({ vault: name, mount, role, type, principals, ttl, extensions, publicKeyFile }, { vault, clock }) => {
    const connection = vault(name)
    const { address, secrets } = connection
    const path = `${mount}/sign/${role}`
    /** By the monotonic clock. */
    const dueAt = new WeakMap<Reading['fields'], number>()
    const plan = ({ fields }: Pick<Reading, 'fields'>, restMs: number) => {
      const due = clock.elapsed() + restMs
      dueAt.set(fields, due)
      return due
    }
    /** Of one that an earlier process asked for, what is left by the wall clock. */
    const untilDue = (reading: Reading) => {
      const { receivedAt, notAfter } = reading
      const due =
        dueAt.get(reading.fields) ?? plan(reading, receivedAt + (notAfter - receivedAt) * REPLACE - clock.now())
      return Math.max(due - clock.elapsed(), 0)
    }

    const read = async (signal: AbortSignal): Promise<Reading> => {
      const pair = publicKeyFile === undefined ? await makeKey() : { public_key: readPublicKey(publicKeyFile) }
      const parameters = {
        public_key: pair.public_key,
        cert_type: type,
        valid_principals: principals.join(','),
        ...(ttl !== undefined && { ttl: `${Math.round(ttl / 1000)}s` }),
        ...(extensions && { extension: extensions }),
      }
      const answer = await secrets.read(path, parameters, signal)
      const { signed_key: certificate } = parsed(answer.fields.reveal(), path)
      const { serial, notAfter } = validity(certificate, path)
      const now = clock.now()
      const fields = new Secret({ certificate, serial, ...pair })
      if (notAfter !== undefined) plan({ fields }, (notAfter - now) * REPLACE)
      return { fields, version: `serial ${serial}`, made: true, receivedAt: now, notAfter: notAfter ?? NEVER }
    }

    return {
      origin: ['vault-ssh', address, path, type, principals.join(','), ttl ?? '', publicKeyFile ?? '']
        .filter(String)
        .join(' '),
      issues: true,
      read,
      examine: (signal) => examinePolicy(connection, { method: 'POST', path }, signal),
      afterMs: (reading) => Math.min(untilDue(reading), LOOK_MS),
      look: async (reading) => {
        const isOther =
          publicKeyFile !== undefined && reading.fields.reveal().public_key !== readPublicKey(publicKeyFile)
        return untilDue(reading) === 0 || isOther ? undefined : reading
      },
    }
  },
})

function parsed(fields: object, path: string): z.output<typeof Signed> {
  const { data } = Signed.safeParse(fields)
  if (data) return data
  throw new SidecarError('BAD_RESPONSE', `POST ${path}: the answer holds no signed_key`)
}

function validity(certificate: string, path: string): SshCertificate {
  try {
    return readSshCertificate(certificate)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new SidecarError('BAD_RESPONSE', `POST ${path}: the signed_key ${why}`, { cause })
  }
}

async function makeKey(): Promise<{ public_key: string; private_key: string }> {
  const key = await generateKey('ecdsa-p256')
  // As ssh reads it in all its versions.
  return {
    public_key: sshPublicKey(createPublicKey(key)),
    private_key: String(key.export({ type: 'sec1', format: 'pem' })),
  }
}

function readPublicKey(path: string): string {
  try {
    return readPlainFile(path).toString('utf8').trim()
  } catch (cause) {
    throw new SidecarError(
      'CONFIG_INVALID',
      `publicKeyFile ${path} cannot be read (${systemCode(cause) ?? 'unknown'})`,
      { cause },
    )
  }
}
