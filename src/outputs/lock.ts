import * as fs from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SidecarError, systemCode } from '../errors.ts'
import type { PinnedDir } from './pinned-dir.ts'

/**
 * One writer per directory: a listening socket named after the directory's device and inode, which the kernel frees with its
 * process, however that ends. On Linux the name is abstract (unix(7)), so nothing is left on disk, and it holds within a network
 * namespace, that is within a pod. Elsewhere it is a socket file, and one whose owner is dead is taken over.
 * Does not keep the process alive. Throws LOCK_HELD.
 */
export async function takeLock(dir: PinnedDir, isAbstract = process.platform === 'linux'): Promise<AsyncDisposable> {
  const { dev, ino } = await dir.self()
  const name = `certferry-${dev}-${ino}`
  const address = isAbstract ? `\0${name}` : join(tmpdir(), `${name}.lock`)
  const server =
    (await listen(address)) ?? (!isAbstract && (await clearDead(address)) ? await listen(address) : undefined)
  if (!server) throw new SidecarError('LOCK_HELD', `another certferry holds ${dir.path}`)
  return {
    [Symbol.asyncDispose]: () => new Promise((resolve) => server.close(() => resolve())),
  }
}

/** undefined where somebody listens already. */
function listen(address: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy()).unref()
    server.once('error', (error) => (systemCode(error) === 'EADDRINUSE' ? resolve(undefined) : reject(error)))
    server.listen({ path: address, exclusive: true }, () => resolve(server))
  })
}

/** Removes a socket file that nobody listens on any more. */
async function clearDead(path: string): Promise<boolean> {
  const isDead = await new Promise<boolean>((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => resolve(false))
    socket.once('error', (error) => resolve(systemCode(error) === 'ECONNREFUSED'))
    socket.once('connect', () => socket.destroy())
  })
  if (isDead) await fs.rm(path, { force: true })
  return isDead
}
