import * as z from 'zod'
import { NEVER } from '../core/content.ts'
import type { Reading } from '../core/snapshot.ts'
import { jittered, MountPath, poll, SecretPath, vaultName } from '../vault/paths.ts'
import { defineValue } from './value.ts'

export const vaultKv = defineValue({
  kind: 'vault-kv',
  summary: 'A secret in a key-value engine, of version 1 or 2; a new version is a change.',
  options: z.strictObject({
    vault: vaultName,
    mount: MountPath.prefault('secret').describe('Where the engine is mounted'),
    path: SecretPath.describe('Path below the mount, without data/'),
    version: z.int().min(1).optional().describe('The version to keep to; the latest unless given'),
    poll,
  }),
  create: ({ vault: name, poll, ...place }, { vault, clock }) => {
    const { address, secrets } = vault(name)
    const read = async (signal: AbortSignal): Promise<Reading> => {
      const { fields, version } = await secrets.readKv(place, signal)
      return {
        fields,
        version: version === 0 ? '' : `v${version}`,
        made: false,
        receivedAt: clock.now(),
        notAfter: NEVER,
      }
    }
    return {
      origin: `vault-kv ${address} ${place.mount} ${place.path}${place.version === undefined ? '' : ` v${place.version}`}`,
      issues: false,
      read,
      examine: async (signal) => {
        const { fields, version } = await read(signal)
        const what = `${place.mount}/${place.path}${version && ` ${version}`} has ${Object.keys(fields.reveal()).join(', ') || 'no field'}`
        return { ok: true, what }
      },
      afterMs: () => jittered(poll, clock.random),
      look: (_, signal) => read(signal),
    }
  },
})
