import { randomBytes } from 'node:crypto'
import { chmodSync, lstatSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { connect, type Server } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { SidecarError, systemCode } from '../errors.ts'

/** The address of a Unix socket is at most this long (unix(7): sun_path, with its closing zero). */
const MAX_PATH_BYTES = 107

export interface SocketOptions {
  /** What a person gave the path with. */
  readonly name?: string
  /** Who may connect: this user, or also the group of the socket, which is that of its folder where that has the setgid bit. */
  readonly mode?: 0o600 | 0o660
}

/**
 * Makes a server listen on a Unix socket that only this user can open, unless told otherwise. Steps: 1. make the folder, 0700 (or 0750),
 * where it is missing; 2. refuse a path that a living process serves, or that holds something else; 3. clear what a killed process left;
 * 4. bind at a random name under a umask, and only then let the group in; 5. rename into place, which replaces the socket of a dead
 * process at once.
 * Resolves with a function that removes the socket. Throws ADDRESS_IN_USE, FOREIGN_OBJECT, VOLUME_UNAVAILABLE or CONFIG_INVALID.
 */
export async function listenOnSocket(
  server: Server,
  path: string,
  { name = 'admin.socket', mode = 0o600 }: SocketOptions = {},
): Promise<() => void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}`)
  if (Buffer.byteLength(temporary) > MAX_PATH_BYTES) {
    const most = MAX_PATH_BYTES - (temporary.length - path.length)
    throw new SidecarError('CONFIG_INVALID', `${name} ${path} is longer than the ${most} bytes a socket path may have`)
  }
  try {
    mkdirSync(dirname(path), { recursive: true, mode: mode === 0o600 ? 0o700 : 0o750 })
    await assertFree(path, name)
    await clearLeftovers(path)
    await bind(server, temporary)
    chmodSync(temporary, mode)
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    if (error instanceof SidecarError) throw error
    throw new SidecarError('VOLUME_UNAVAILABLE', `the socket ${path} cannot be made: ${systemCode(error)}`, {
      cause: error,
    })
  }
  const { ino } = statSync(path)
  return () => {
    // A successor may have put its own in place.
    if (statSync(path, { throwIfNoEntry: false })?.ino === ino) rmSync(path, { force: true })
  }
}

async function assertFree(path: string, name: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (!found) return
  if (!found.isSocket()) throw new SidecarError('FOREIGN_OBJECT', `${path}, given as ${name}, exists and is no socket`)
  if (await isServed(path)) {
    throw new SidecarError('ADDRESS_IN_USE', `another process serves the socket ${path}; is certferry running already?`)
  }
}

/** Sockets of processes killed between bind and rename. */
async function clearLeftovers(path: string): Promise<void> {
  const prefix = `.${basename(path)}.`
  const names = readdirSync(dirname(path)).filter(
    (name) => name.startsWith(prefix) && /^[0-9a-f]{8}$/.test(name.slice(prefix.length)),
  )
  for (const leftover of names.map((name) => join(dirname(path), name))) {
    if (lstatSync(leftover, { throwIfNoEntry: false })?.isSocket() && !(await isServed(leftover)))
      rmSync(leftover, { force: true })
  }
}

/** Only a refused connection proves that nobody listens; a full backlog or a missing permission does not (connect(2)). */
function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error) => resolve(!['ECONNREFUSED', 'ENOENT'].includes(systemCode(error) ?? '')))
  })
}

/** The umask is the only way to have no moment in which others could connect. `listen` binds before it returns. */
async function bind(server: Server, path: string): Promise<void> {
  const listening = new Promise<void>((resolve, reject) => {
    server.once('listening', resolve)
    server.once('error', reject)
  })
  const umask = process.umask(0o177)
  try {
    server.listen(path)
  } finally {
    process.umask(umask)
  }
  await listening
}
