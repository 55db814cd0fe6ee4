import { randomBytes } from 'node:crypto'
import type { Content, Instant } from '../core/content.ts'
import { SidecarError } from '../errors.ts'
import { writeNew } from './atomic-file.ts'
import { differenceOf, type FileFacts, type Seen } from './check.ts'
import { includeFile } from './include-file.ts'
import {
  formatManifest,
  identityOf,
  MANIFEST_FILE,
  type Manifest,
  type ManifestFile,
  parseManifest,
  sha256,
} from './manifest.ts'
import type { DirectorySet, OutputFile } from './output.ts'
import type { PinnedDir } from './pinned-dir.ts'
import type { Codec, Repair } from './store.ts'
import { isOurs } from './volume.ts'

/** A whole set of files in a directory of its own, never changed once it is complete. */
export interface Generation<C extends Content> {
  readonly name: string
  readonly manifest: Manifest
  /** The manifest as a file. */
  readonly self: FileFacts
  readonly bundle: C
}

const NAME = /^\.\.gen-(\d{1,15})-[0-9a-f]{8}$/
export const isGenerationName = (name: string): boolean => NAME.test(name)
/** The number in the name: when it was built, ms, or just after the one before where the clock went back. */
export const builtAt = (name: string): Instant => Number(NAME.exec(name)?.[1])

/** Later than all there are, whatever the clock says. */
export function nextName(existing: readonly string[], now: Instant): string {
  const number = Math.max(now, ...existing.map((name) => builtAt(name) + 1))
  return `..gen-${Math.floor(number)}-${randomBytes(4).toString('hex')}`
}

export interface Plan<C extends Content> {
  readonly name: string
  /** See the manifest. */
  readonly sequence: number
  readonly certificate: string
  readonly set: DirectorySet
  readonly bundle: C
  readonly codec: Codec<C>
}

/**
 * Builds a generation that nothing refers to yet:
 * 1. its directory, for us alone;
 * 2. each file, complete, synced and read back, with its final mode and owner;
 * 3. what they were made of, from which a restart goes on whatever the outputs are;
 * 4. the manifest, last;
 * 5. the directory's final mode; sync of the directory, then of the one above.
 * What fails is removed as far as possible; recovery clears the rest.
 */
export async function buildGeneration<C extends Content>(root: PinnedDir, plan: Plan<C>): Promise<Generation<C>> {
  await root.makeDirectory(plan.name)
  try {
    const built = await fill(root, plan)
    await root.sync()
    return built
  } catch (error) {
    await removeGeneration(root, plan.name).catch(() => {})
    throw error
  }
}

async function fill<C extends Content>(
  root: PinnedDir,
  { name, sequence, certificate, set, bundle, codec }: Plan<C>,
): Promise<Generation<C>> {
  await using dir = await root.open(name)
  const include = includeFile(set, name)
  const files: ManifestFile[] = []
  for (const file of [...set.files, ...(include ? [include] : [])]) files.push(await add(dir, file))
  files.push(await addContent(dir, bundle, codec))
  const { layout, seenAs } = set
  const manifest: Manifest = {
    schema: 1,
    certificate,
    layout,
    seenAs,
    ...factsOf(bundle),
    sequence,
    identity: identityOf(set),
    files,
  }
  const self = await add(dir, { name: MANIFEST_FILE, role: 'bundle', content: formatManifest(manifest), mode: 0o600 })
  await dir.setMode(directoryMode(files) | ((await dir.self()).mode & SETGID))
  await dir.sync()
  return { name, manifest, self, bundle }
}

const factsOf = ({ fingerprint, serial, notBefore, notAfter, receivedAt, origin }: Content) => ({
  fingerprint,
  serial,
  notBefore,
  notAfter,
  receivedAt,
  origin,
})

type AnyFile = Omit<OutputFile, 'role'> & Pick<ManifestFile, 'role'>

async function add(dir: PinnedDir, { name, role, ...file }: AnyFile): Promise<ManifestFile> {
  const access = await writeNew(dir, name, file)
  return { name, role, size: file.content.length, sha256: sha256(file.content), ...access }
}

async function addContent<C extends Content>(dir: PinnedDir, bundle: C, codec: Codec<C>): Promise<ManifestFile> {
  const content = codec.encode(bundle)
  try {
    return await add(dir, { name: codec.file, role: 'bundle', content, mode: 0o600 })
  } finally {
    content.fill(0)
  }
}

const SETGID = 0o2000

/** Others may pass through, not list, where a file in it is meant for others. */
const directoryMode = (files: readonly ManifestFile[]): number =>
  files.some(({ mode, uid }) => (mode & 0o077) !== 0 || !isOurs(uid)) ? 0o711 : 0o700

/** What can be read of a generation: undefined unless its manifest is there and the content is the one the manifest describes. */
export async function loadGeneration<C extends Content>(
  root: PinnedDir,
  name: string,
  codec: Codec<C>,
): Promise<Generation<C> | undefined> {
  if ((await root.look(name))?.type !== 'directory') return undefined
  await using dir = await root.open(name)
  const content = await dir.readFile(MANIFEST_FILE)
  const entry = await dir.look(MANIFEST_FILE)
  const manifest = content && parseManifest(content)
  const bundle = manifest && (await loadContent(dir, manifest, codec))
  if (!content || !entry || !bundle) return undefined
  const { size, uid, gid } = entry
  const self = { name: MANIFEST_FILE, size, sha256: sha256(content), mode: 0o600, uid, gid }
  return { name, manifest, self, bundle }
}

async function loadContent<C extends Content>(
  dir: PinnedDir,
  manifest: Manifest,
  codec: Codec<C>,
): Promise<C | undefined> {
  const listed = manifest.files.find(({ role, name }) => role === 'bundle' && name === codec.file)
  const content = listed && (await dir.readFile(listed.name))
  if (!content || sha256(content) !== listed.sha256) return undefined
  try {
    const bundle = codec.decode(content, manifest)
    return bundle.fingerprint === manifest.fingerprint ? bundle : undefined
  } catch {
    return undefined
  } finally {
    content.fill(0)
  }
}

/** Everything about a generation that is not as its manifest says. */
export async function damageOf(root: PinnedDir, generation: Generation<Content>, seen: Seen): Promise<Repair[]> {
  const path = `${root.path}/${generation.name}`
  const entry = await root.look(generation.name)
  if (entry?.type !== 'directory') return [{ path, what: entry ? 'type' : 'missing' }]
  const damage: Repair[] = []
  if ((entry.mode & ~SETGID) !== directoryMode(generation.manifest.files)) damage.push({ path, what: 'mode' })
  if (!isOurs(entry.uid)) damage.push({ path, what: 'owner' })
  await using dir = await root.open(generation.name)
  for (const file of [...generation.manifest.files, generation.self]) {
    const what = await differenceOf(dir, file, seen)
    if (what) damage.push({ path: `${path}/${file.name}`, what })
  }
  return damage
}

/**
 * Removes a generation, its manifest first, so that a half-removed one never counts as complete. One that somebody else removed is fine.
 * Throws FOREIGN_OBJECT for what certferry never makes, and leaves it.
 */
export async function removeGeneration(root: PinnedDir, name: string): Promise<void> {
  if ((await root.look(name)) === undefined) return
  const dir = await root.open(name)
  try {
    await dir.remove(MANIFEST_FILE)
    for (const entry of await dir.list()) {
      const type = (await dir.look(entry))?.type
      if (type === 'directory' || type === 'other')
        throw new SidecarError('FOREIGN_OBJECT', `${dir.path}/${entry} is neither a file nor a symbolic link`)
      await dir.remove(entry)
    }
  } finally {
    await dir[Symbol.asyncDispose]()
  }
  await root.removeDirectory(name)
}
