import { constants, type FileHandle, open } from 'node:fs/promises'
import type { Instant } from '../core/bundle.ts'
import { quote } from '../core/secret.ts'
import { SidecarError, systemCode } from '../errors.ts'

const ATTEMPTS = 10

export interface PidFile {
  readonly pid: number
  readonly writtenAt: Instant
}

/**
 * The process id in a file. Daemons truncate their pid file before they write it, so an unfinished one is read again after each `pause`,
 * ten times in all; without `pause` there is one look. Throws RELOAD_TARGET_MISSING, or RELOAD_EPERM when it may not be read.
 */
export async function readPid(path: string, pause?: () => Promise<void>): Promise<PidFile> {
  for (let attempt = 1; ; attempt += 1) {
    const { text, writtenAt } = await readPidFile(path)
    // Number('') is 0, and signalling 0 or -1 hits our own group or everyone.
    if (/^[1-9]\d{0,9}$/.test(text)) return { pid: Number(text), writtenAt }
    if (!pause || attempt === ATTEMPTS)
      throw new SidecarError(
        'RELOAD_TARGET_MISSING',
        `pid file ${path} holds "${quote(text, 40)}", which is no process id; nothing was signalled`,
      )
    await pause()
  }
}

/** The first line of the file. O_NONBLOCK, so that a FIFO planted there does not hold us. */
async function readPidFile(path: string): Promise<{ text: string; writtenAt: Instant }> {
  let file: FileHandle | undefined
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const { mtimeMs } = await file.stat()
    const { buffer, bytesRead } = await file.read(Buffer.alloc(64), 0, 64, null)
    return { text: buffer.toString('utf8', 0, bytesRead).split('\n', 1)[0]?.trim() ?? '', writtenAt: mtimeMs }
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'EACCES')
      throw new SidecarError('RELOAD_EPERM', `pid file ${path} may not be read by this user`, { cause })
    const why = code === 'ENOENT' ? 'does not exist; the target is not running' : `cannot be read: ${code ?? cause}`
    throw new SidecarError('RELOAD_TARGET_MISSING', `pid file ${path} ${why}`, { cause })
  } finally {
    await file?.close()
  }
}
