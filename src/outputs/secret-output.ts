import type { Instant } from '../core/content.ts'
import { type Snapshot, valuesOf } from '../core/snapshot.ts'
import type { Values } from '../core/values.ts'
import { definer } from '../registry.ts'
import { assertAclTools } from './acl.ts'
import { isShared } from './options.ts'
import type { Layout, Output } from './output.ts'

export interface SecretOutputDeps {
  /** Names of the values that the secret has. */
  readonly values: readonly string[]
}

/** Gives a secret its `defineX`: the values as text in a file. */
export const defineSecretOutput = definer<SecretOutputDeps, Output<Snapshot>>()

interface Place {
  readonly directory: string
  readonly layout: Layout
  readonly file: string
  readonly mode: number
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  readonly acl?: readonly string[] | undefined
}

/** One file whose text `write` makes of the values, and of the time they were read at. Throws what `write` throws: FIELD_MISSING, VALUE_UNWRITABLE, TEMPLATE_FAILED. */
export const textFile = (
  { directory, layout, file, mode, uid, gid, acl }: Place,
  write: (values: Values, now: Instant) => string,
): Output<Snapshot> => ({
  directory,
  layout,
  seenAs: directory,
  names: [file],
  isShared: acl !== undefined || isShared(uid, mode),
  prepare: async () => {
    if (acl) await assertAclTools()
  },
  render: (snapshot) => [
    {
      name: file,
      role: 'secret',
      content: Buffer.from(write(valuesOf(snapshot), snapshot.receivedAt)),
      mode,
      uid,
      gid,
      acl,
    },
  ],
})
