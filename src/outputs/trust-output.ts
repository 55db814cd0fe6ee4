import type { TrustSet } from '../core/trust.ts'
import { definer } from '../registry.ts'
import { assertAclTools } from './acl.ts'
import { isShared } from './options.ts'
import type { Layout, Output } from './output.ts'

/** Gives a trust its `defineX`: CAs or revocation lists in files that peers read. */
export const defineTrustOutput = definer<undefined, Output<TrustSet>>()

interface Place {
  readonly directory: string
  readonly layout: Layout
  readonly mode: number
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  readonly acl?: readonly string[] | undefined
}

interface TrustFile {
  readonly name: string
  readonly write: (set: TrustSet) => Buffer
}

/** Files without a secret, of one place. `prepare` may throw for what `write` needs. */
export const trustFiles = (
  { directory, layout, mode, uid, gid, acl }: Place,
  files: readonly TrustFile[],
  prepare: () => Promise<void> = async () => {},
): Output<TrustSet> => ({
  directory,
  layout,
  seenAs: directory,
  names: files.map(({ name }) => name),
  isShared: acl !== undefined || isShared(uid, mode),
  prepare: async () => {
    if (acl) await assertAclTools()
    await prepare()
  },
  render: (set) => files.map(({ name, write }) => ({ name, role: 'ca', content: write(set), mode, uid, gid, acl })),
})
