import { createHash } from 'node:crypto'
import * as z from 'zod'
import { type DirectorySet, LAYOUTS, type OutputFile } from './output.ts'

/** Names that start with `..` are certferry's own; no output may use one. */
export const MANIFEST_FILE = '..manifest.json'

const SEGMENT = /^(?!\.\.?$)[^/\0]+$/

const ManifestFile = z.object({
  /** One segment, since paths are made of it. */
  name: z.string().regex(SEGMENT),
  role: z.enum([
    'certificate',
    'key',
    'ca',
    'chain',
    'staple',
    'combined',
    'secret',
    'key-form',
    'certificate-form',
    'include',
    'bundle',
  ]),
  size: z.int().min(0),
  sha256: z.string(),
  mode: z.int(),
  uid: z.int(),
  gid: z.int(),
  /** The whole of it as numbers, where there is one. */
  acl: z.array(z.string()).optional(),
  /** Where readers find it, if not under its name in the directory of the set. */
  shown: z.object({ directory: z.string(), name: z.string().regex(SEGMENT) }).optional(),
})
export type ManifestFile = z.output<typeof ManifestFile>

/** What a generation holds, written into it last: a generation with a manifest that matches its files is complete. */
const Manifest = z.object({
  schema: z.literal(1),
  certificate: z.string(),
  layout: z.enum(LAYOUTS),
  seenAs: z.string(),
  fingerprint: z.string(),
  serial: z.string(),
  notBefore: z.number(),
  notAfter: z.number(),
  receivedAt: z.number(),
  origin: z.string(),
  /** Orders bundles by receipt, whatever the clock did; the same for every generation of one bundle. */
  sequence: z.number(),
  /** Of what was asked for; see {@link identityOf}. */
  identity: z.string(),
  files: z.array(ManifestFile),
})
export type Manifest = z.output<typeof Manifest>

/** undefined for what is no manifest, or one of a later version. */
export function parseManifest(content: Buffer): Manifest | undefined {
  try {
    return Manifest.parse(JSON.parse(content.toString()))
  } catch {
    return undefined
  }
}

export const formatManifest = (manifest: Manifest): Buffer => Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`)

/** Equal for two sets that lead to the same files: contents, names, modes, owners and layout. */
export const identityOf = ({ layout, seenAs, files }: DirectorySet): string =>
  sha256(Buffer.from(JSON.stringify([layout, seenAs, files.map(facts)])))

const facts = ({ name, role, mode, uid, gid, acl, shown, content }: OutputFile) => [
  name,
  role,
  mode,
  uid ?? null,
  gid ?? null,
  sha256(content),
  // Not where there is none, so that a set from before there were any is the same still.
  ...(acl ? [acl] : []),
  ...(shown ? [shown.directory, shown.name] : []),
]

export const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex')

const ORDER = {
  ca: 0,
  chain: 1,
  staple: 1,
  combined: 2,
  secret: 2,
  'key-form': 2,
  key: 3,
  certificate: 4,
  'certificate-form': 4,
  include: 5,
  bundle: 6,
} as const

/** What readers see, in the order of publication: whoever watches the certificate finds its key in place already. */
export const visibleFiles = ({ files }: Manifest): ManifestFile[] =>
  files.filter(({ role }) => role !== 'bundle').sort((a, b) => ORDER[a.role] - ORDER[b.role])
