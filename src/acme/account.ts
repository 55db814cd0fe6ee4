import { createPrivateKey, type KeyObject, randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { link, open, unlink } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { keyPem } from '../core/bundle.ts'
import { generateKey } from '../core/key.ts'
import { SidecarError, systemCode } from '../errors.ts'

/**
 * The key of an account, P-256, made where there is none. The file appears whole or not at all; of several who make one at the same time the
 * first wins. Throws ACME_ACCOUNT where it cannot be read or kept, or others may read it.
 */
export async function accountKey(file: string): Promise<KeyObject> {
  const found = (await read(file)) ?? (await make(file)) ?? (await read(file))
  if (found) return found
  throw new SidecarError('ACME_ACCOUNT', `account.keyFile ${file} comes and goes`)
}

async function read(file: string): Promise<KeyObject | undefined> {
  try {
    await using handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    const { mode } = await handle.stat()
    if ((mode & 0o077) !== 0)
      throw new SidecarError(
        'ACME_ACCOUNT',
        `account.keyFile ${file} has mode ${(mode & 0o7777).toString(8)}: others may read it; chmod 600`,
      )
    const content = await handle.readFile()
    try {
      return createPrivateKey(content)
    } catch {
      throw new SidecarError('ACME_ACCOUNT', `account.keyFile ${file} holds no private key in PEM`)
    } finally {
      content.fill(0)
    }
  } catch (cause) {
    if (cause instanceof SidecarError) throw cause
    if (systemCode(cause) === 'ENOENT') return undefined
    throw unreadable('be read', file, cause)
  }
}

/** undefined where somebody else was first. */
async function make(file: string): Promise<KeyObject | undefined> {
  const key = await generateKey('ecdsa-p256')
  const content = keyPem(key)
  const temporary = join(dirname(file), `..tmp-${randomUUID().replaceAll('-', '').slice(0, 16)}`)
  try {
    await using handle = await open(temporary, 'wx', 0o600)
    await handle.writeFile(content)
    await handle.sync()
    await link(temporary, file)
    return key
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') return undefined
    throw unreadable('be made', file, cause)
  } finally {
    content.fill(0)
    await unlink(temporary).catch(() => undefined)
  }
}

function unreadable(what: string, file: string, cause: unknown): SidecarError {
  const code = systemCode(cause)
  const fix = code === 'ENOENT' ? '; make its directory first' : ''
  const message = `account.keyFile ${file} cannot ${what} (${code ?? String(cause)})${fix}`
  return new SidecarError('ACME_ACCOUNT', message, { cause })
}
