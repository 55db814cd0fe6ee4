import { createHash } from 'node:crypto'
import * as z from 'zod'
import { NEVER } from '../core/content.ts'
import { Secret } from '../core/secret.ts'
import type { Reading } from '../core/snapshot.ts'
import { SidecarError } from '../errors.ts'
import { MountPath, PathSegment, vaultName } from '../vault/paths.ts'
import { examinePolicy } from '../vault/policy.ts'
import { defineValue } from './value.ts'

/** What it holds cannot change; only the right to decrypt it. */
const LOOK_MS = 86_400_000

const Ciphertext = z.string().regex(/^vault:v\d+:/, 'must begin with vault:v1: or the like, as transit encrypts')

/** https://developer.hashicorp.com/vault/api-docs/secret/transit#decrypt-data */
const Decrypted = z.object({
  batch_results: z.array(z.object({ plaintext: z.base64().default(''), error: z.string().default('') })),
})

export const vaultTransit = defineValue({
  kind: 'vault-transit',
  summary: 'Values that stand encrypted in the config, decrypted by the transit engine: POST {mount}/decrypt/{key}.',
  options: z.strictObject({
    vault: vaultName,
    mount: MountPath.prefault('transit').describe('Where the engine is mounted'),
    key: PathSegment.describe('Name of the key'),
    ciphertext: z.record(z.string(), Ciphertext).describe('The encrypted values, by field'),
    encoding: z
      .enum(['utf8', 'base64'])
      .default('utf8')
      .describe('base64 leaves what is decrypted as base64, for what is no text'),
  }),
  create: ({ vault: name, mount, key, ciphertext, encoding }, { vault, clock }) => {
    const connection = vault(name)
    const { address, secrets } = connection
    const path = `${mount}/decrypt/${key}`
    const names = Object.keys(ciphertext)
    const read = async (signal: AbortSignal): Promise<Reading> => {
      const batch = names.map((field) => ({ ciphertext: ciphertext[field] ?? '' }))
      // Where some cannot be decrypted, the answer says which; where none can, Vault says nothing.
      const parameters = { batch_input: batch, partial_failure_response_code: 200 }
      const { fields } = await secrets.read(path, parameters, signal).catch((error) => {
        throw isRejected(error) ? toldOf(error, names) : error
      })
      const { data: { batch_results: results } = {} } = Decrypted.safeParse(fields.reveal())
      if (!results) throw new SidecarError('BAD_RESPONSE', `POST ${path}: the answer holds no batch_results`)
      const decrypted = names.map((field, index) => {
        const { plaintext = '', error = 'no answer' } = results[index] ?? {}
        if (error !== '') throw new SidecarError('REQUEST_REJECTED', `POST ${path}: field "${field}": ${error}`)
        return [field, encoding === 'base64' ? plaintext : textOf(Buffer.from(plaintext, 'base64'), field)]
      })
      const receivedAt = clock.now()
      return {
        fields: new Secret(Object.fromEntries(decrypted)),
        version: '',
        made: false,
        receivedAt,
        notAfter: NEVER,
      }
    }
    return {
      origin: `vault-transit ${address} ${mount} ${key} ${names.map((field) => `${field}:${digestOf(ciphertext[field])}`).join(' ')}`,
      issues: false,
      read,
      examine: (signal) => examinePolicy(connection, { method: 'POST', path }, signal),
      afterMs: () => LOOK_MS,
      look: (_, signal) => read(signal),
    }
  },
})

const isRejected = (error: unknown): error is SidecarError =>
  error instanceof SidecarError && error.code === 'REQUEST_REJECTED'

const toldOf = (error: SidecarError, names: readonly string[]) =>
  new SidecarError('REQUEST_REJECTED', `${error.message}; this key decrypts none of ${names.join(', ')}`, {
    cause: error,
  })

/** Enough to tell that it is another one. */
const digestOf = (ciphertext = '') => createHash('sha256').update(ciphertext).digest('hex').slice(0, 12)

function textOf(bytes: Buffer, field: string): string {
  const text = bytes.toString('utf8')
  if (Buffer.from(text, 'utf8').equals(bytes)) return text
  throw new SidecarError(
    'VALUE_UNWRITABLE',
    `field "${field}" is no UTF-8 text once it is decrypted; say encoding: base64`,
  )
}
