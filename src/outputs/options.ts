import { normalize } from 'node:path'
import * as z from 'zod'
import { KEY_FORMATS } from '../core/key-format.ts'
import { Mode } from '../core/units.ts'
import { FieldPath } from '../core/values.ts'
import { Acl } from './acl.ts'
import { INCLUDE_FILE, LAYOUTS } from './output.ts'
import { PasswordFile } from './password.ts'

const MAX_NAME_BYTES = 200
const MAX_PATH_BYTES = 3000

/** Paths and names end up in file names, and in nginx's configuration, which knows no escape for `$`. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const UNWRITABLE = /[\u0000-\u001f\u007f"'\\$;{}]/
const PLAIN = 'must not hold control characters, quotes or any of \\ $ ; { }'

/** One path segment. Names that start with `..` are certferry's own. */
export const FileName = z
  .string()
  .refine((name) => !UNWRITABLE.test(name), PLAIN)
  .refine((name) => !name.includes('/'), 'must be a name without "/"; the place is given by directory')
  .refine((name) => name !== '' && name !== '.', 'must name a file')
  .refine((name) => !name.startsWith('..'), 'must not start with ".."; such names are certferry\'s own')
  .refine((name) => name !== INCLUDE_FILE, `"${INCLUDE_FILE}" is the file that layout nginx-include writes`)
  .refine((name) => Buffer.byteLength(name) <= MAX_NAME_BYTES, `must not be longer than ${MAX_NAME_BYTES} bytes`)

const DirectoryPath = z
  .string()
  .refine((path) => !UNWRITABLE.test(path), PLAIN)
  .refine((path) => path.startsWith('/'), 'must be an absolute path')
  .refine((path) => path !== '/', 'must be a directory of its own')
  .refine((path) => !path.split('/').some((part) => part === '.' || part === '..'), 'must not contain "." or ".."')
  .refine((path) => Buffer.byteLength(path) <= MAX_PATH_BYTES, `must not be longer than ${MAX_PATH_BYTES} bytes`)
  .transform((path) => normalize(path).replace(/(?<=.)\/$/, ''))

/** Others never read a key, nobody but its owner writes it. */
const KeyMode = Mode.refine((mode) => (mode & 0o400) !== 0, "must let its owner read it, such as '0600'").refine(
  (mode) => (mode & 0o137) === 0,
  "must give nothing to others, at most reading to the group, and no right to execute: '0600' or '0640'",
)
const CertificateMode = Mode.refine(
  (mode) => (mode & 0o400) !== 0,
  "must let its owner read it, such as '0644'",
).refine(
  (mode) => (mode & 0o133) === 0,
  "must not let group or others write, nor anybody execute: '0600', '0640' or '0644'",
)

const Id = z
  .int()
  .min(0)
  .max(2 ** 32 - 2)

const placeOptions = {
  directory: DirectoryPath.describe('Absolute path; made if it is missing. One certificate or secret per directory'),
  uid: Id.optional().describe('Owner of the files, where it is not the user certferry runs as'),
  gid: Id.optional().describe('Group of the files'),
  acl: Acl.optional(),
}

/** What every output of a certificate that writes files has in common. */
export const fileOptions = {
  ...placeOptions,
  layout: z
    .enum(LAYOUTS)
    .default('generation')
    .describe(
      'generation: links into a directory that is swapped as a whole. nginx-include: besides, a tls.conf which names one such directory, so that nginx never reads a mixed pair. flat: plain files',
    ),
  mode: KeyMode.prefault('0600').describe('Mode of the file that holds the key'),
  seenAs: DirectoryPath.optional().describe(
    'The directory as the reader sees it, where the volume is mounted elsewhere there; for the paths inside tls.conf',
  ),
  oneSetWith: DirectoryPath.optional().describe(
    'Directory of an output above, to change with it by the same rename: the files become links into its set; see docs/outputs.md',
  ),
}

/** Layouts whose names are links alone can lie elsewhere than their set. */
export const SET_RULE = {
  path: ['oneSetWith'],
  error: 'goes with layout: generation; the files are links into the set of the other directory',
}
export const isLinked = ({ oneSetWith, layout }: { oneSetWith?: string | undefined; layout: string }) =>
  oneSetWith === undefined || layout === 'generation'

/** What every output of a secret has in common. */
export const secretFileOptions = {
  ...placeOptions,
  file: FileName.describe('Name of the file'),
  layout: z
    .enum(['generation', 'flat'])
    .default('generation')
    .describe('generation: links into a directory that is swapped as a whole. flat: plain files'),
  mode: KeyMode.prefault('0600').describe('Mode of the file'),
}

/** What every output of a trust has in common: nothing in it is secret. */
export const trustFileOptions = {
  ...placeOptions,
  layout: secretFileOptions.layout,
  mode: CertificateMode.prefault('0644').describe('Mode of the files'),
}

/** A file by its name, or with access of its own. `false` leaves it out. */
const fileOf = <M extends z.ZodType>(mode: M) =>
  z.union(
    [
      FileName,
      z.strictObject({
        name: FileName.optional().describe('Its name'),
        mode: mode.optional().describe('Its mode'),
        uid: placeOptions.uid,
        gid: placeOptions.gid,
        acl: Acl.optional(),
      }),
      z.literal(false),
    ],
    { error: 'must be the name of a file, or a map of name, mode, uid, gid and acl, or false to leave it out' },
  )
/** One that holds the key. */
export const KeyFile = fileOf(KeyMode)
/** One that does not. */
export const CertificateFile = fileOf(CertificateMode)
export type FileChoice = z.output<typeof KeyFile> | z.output<typeof CertificateFile>

/** Mode of the files without a key. */
export const certificateMode = CertificateMode.optional().describe(
  'Mode of the files without the key; that of mode unless given',
)

/** Which fields are written under which name. */
export const entries = z
  .record(z.string().min(1), FieldPath)
  .optional()
  .describe('Which field each name stands for, such as DB_USER: db.username; all fields unless given')

/** How the key is written in PEM, and the password for the one that is encrypted. */
export const keyOptions = {
  keyFormat: z
    .enum(KEY_FORMATS)
    .default('pkcs8')
    .describe(
      'Form of the key: pkcs8 (BEGIN PRIVATE KEY), pkcs1 (BEGIN RSA PRIVATE KEY), sec1 (BEGIN EC PRIVATE KEY), or pkcs8-encrypted (AES-256, with passwordFile)',
    ),
  passwordFile: PasswordFile.optional(),
}

/** A password is for an encrypted key, and that needs one. */
export const hasPasswordFor = ({ keyFormat, passwordFile }: { keyFormat: string; passwordFile?: string | undefined }) =>
  (keyFormat === 'pkcs8-encrypted') === (passwordFile !== undefined)
export const PASSWORD_RULE = {
  path: ['passwordFile'],
  error: 'goes with keyFormat: pkcs8-encrypted, which needs it',
}

/** Does somebody else than this process's user get to read one of the files? */
export const isShared = (uid: number | undefined, ...modes: readonly number[]): boolean =>
  (uid !== undefined && uid !== process.geteuid?.()) || modes.some((mode) => (mode & 0o077) !== 0)
