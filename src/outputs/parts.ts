import type { KeyObject } from 'node:crypto'
import type { Bundle } from '../core/bundle.ts'
import { encryptedKeyPem, formatKey, type KeyFormat, misfitOf } from '../core/key-format.ts'
import { SidecarError } from '../errors.ts'
import { assertAclTools } from './acl.ts'
import { type FileChoice, isShared } from './options.ts'
import type { Layout, Output, OutputFile } from './output.ts'
import { withPassword } from './password.ts'

/** Who may do what with a file. */
export type Access = Pick<OutputFile, 'mode' | 'uid' | 'gid' | 'acl'>

/** A file before there is a bundle; it is left out where there is nothing to write. */
export type Part = Omit<OutputFile, 'content'> & { readonly write: (bundle: Bundle) => Buffer | undefined }

interface Place {
  readonly directory: string
  readonly layout: Layout
  readonly seenAs?: string | undefined
  readonly oneSetWith?: string | undefined
}

interface Needs {
  readonly passwordFile?: string | undefined
  /** In which form the key is written. */
  readonly keyFormat?: KeyFormat | 'ssh'
}

/** An output of these files. */
export function outputOf(
  { directory, layout, seenAs = directory, oneSetWith }: Place,
  parts: readonly Part[],
  needs: Needs,
): Output {
  const roles = parts.map(({ role }) => role)
  const { keyFormat, passwordFile } = needs
  return {
    directory,
    layout,
    seenAs,
    oneSetWith,
    names: parts.map(({ name }) => name),
    staples: roles.includes('staple'),
    isShared: parts.some(({ uid, mode, acl }) => acl !== undefined || isShared(uid, mode)),
    serves: (['certificate', 'key'] as const).filter((role) => roles.includes(role) || roles.includes('combined')),
    ...(keyFormat && { misfit: (algorithm) => misfitOf(keyFormat, algorithm) }),
    prepare: async () => {
      if (parts.some(({ acl }) => acl)) await assertAclTools()
      if (passwordFile !== undefined) withPassword(passwordFile, () => {})
    },
    render: (bundle) =>
      parts.flatMap(({ write, ...file }) => {
        const content = write(bundle)
        return content ? [{ ...file, content }] : []
      }),
  }
}

/** The part that a choice of the config asks for, if it asks for one: its own access goes before that of the output. */
export function partOf(
  choice: FileChoice | undefined,
  { usual, role, access, write }: { usual: string; role: Part['role']; access: Access; write: Part['write'] },
): Part[] {
  if (choice === undefined || choice === false) return []
  const { name = usual, ...own } = typeof choice === 'string' ? { name: choice } : choice
  return [{ ...access, ...given(own), name, role, write }]
}

type Own = { readonly [K in keyof Access]?: Access[K] | undefined }

const given = ({ mode, uid, gid, acl }: Own): Partial<Access> => ({
  ...(mode !== undefined && { mode }),
  ...(uid !== undefined && { uid }),
  ...(gid !== undefined && { gid }),
  ...(acl !== undefined && { acl }),
})

/** The name that a choice gives, if it asks for a file. */
export const nameOf = (choice: FileChoice | undefined, usual: string): string | undefined =>
  typeof choice === 'string' ? choice : choice ? (choice.name ?? usual) : undefined

/** No two choices name the same file. */
export function areDistinct(names: readonly (string | undefined)[]): boolean {
  const asked = names.filter((name) => name !== undefined)
  return new Set(asked).size === asked.length
}

/** The OCSP response, once there is one. The store may wipe what it is given. */
export const stapleOf = ({ staple }: Bundle): Buffer | undefined => staple && Buffer.from(staple.der)

/** The key in PEM as the config wants it. Throws KEY_FORMAT, PASSWORD_FILE. */
export function writeKey(key: KeyObject, format: KeyFormat, passwordFile: string | undefined): Buffer {
  if (format !== 'pkcs8-encrypted') return formatKey(key, format)
  if (passwordFile === undefined) throw new SidecarError('BUG', 'an encrypted key without passwordFile')
  return withPassword(passwordFile, (password) => encryptedKeyPem(key, password))
}
