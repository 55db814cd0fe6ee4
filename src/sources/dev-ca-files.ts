import { randomBytes } from 'node:crypto'
import { constants } from 'node:fs'
import { link, lstat, mkdir, open, readFile, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { SidecarError, systemCode } from '../errors.ts'

/** Key and certificates of the CA, 0600. */
export const SECRET_FILE = 'dev-ca.pem'
/** The root by itself, for clients. */
export const ROOT_FILE = 'ca.crt'

/**
 * The text kept in `directory`; `create` makes one where there is none. A file appears whole or not at all: it is written under another name,
 * flushed and linked, and of several processes that try the first one wins. Throws VOLUME_UNSAFE where others could write or read it.
 */
export const readOrCreate = (directory: string, create: () => Promise<string>): Promise<string> =>
  inDirectory(directory, async () => {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await assertPrivate(directory, 0o022)
    const path = join(directory, SECRET_FILE)
    const found = await readSecret(path)
    if (found !== undefined) return found
    const made = await create()
    await publish(directory, SECRET_FILE, made, 0o600)
    return (await readSecret(path)) ?? made
  })

/** Puts the root beside it, unless it is there. */
export const publishRoot = (directory: string, root: string): Promise<void> =>
  inDirectory(directory, async () => {
    const path = join(directory, ROOT_FILE)
    const found = await readFile(path, 'utf8').catch(() => undefined)
    if (found === undefined) await publish(directory, ROOT_FILE, root, 0o644)
  })

async function inDirectory<T>(directory: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (cause) {
    if (cause instanceof SidecarError) throw cause
    const message = `cannot keep the development CA in ${directory} (${systemCode(cause) ?? String(cause)})`
    throw new SidecarError('VOLUME_UNAVAILABLE', message, { cause })
  }
}

async function assertPrivate(path: string, forbidden: number): Promise<void> {
  const { uid, mode } = await lstat(path)
  const ours = process.getuid?.() ?? uid
  if (uid === ours && (mode & forbidden) === 0) return
  throw new SidecarError(
    'VOLUME_UNSAFE',
    `${path} belongs to user ${uid} and has mode ${(mode & 0o7777).toString(8)}; others could use the CA`,
  )
}

async function readSecret(path: string): Promise<string | undefined> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    await assertPrivate(path, 0o077)
    return await file.readFile('utf8')
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    throw error
  }
}

async function publish(directory: string, name: string, content: string, mode: number): Promise<void> {
  const temporary = join(directory, `.${name}.${randomBytes(8).toString('hex')}`)
  try {
    await using file = await open(temporary, 'wx', mode)
    await file.writeFile(content)
    await file.sync()
    await link(temporary, join(directory, name))
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  } finally {
    await unlink(temporary).catch(() => undefined)
  }
}
