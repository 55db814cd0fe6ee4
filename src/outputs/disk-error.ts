import { getSystemErrorMessage } from 'node:util'
import { type ErrorCode, SidecarError, systemCode } from '../errors.ts'

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOSPC: 'DISK_FULL',
  EDQUOT: 'DISK_FULL',
  EROFS: 'VOLUME_UNAVAILABLE',
  EACCES: 'VOLUME_UNAVAILABLE',
  EPERM: 'VOLUME_UNAVAILABLE',
  ENOENT: 'VOLUME_UNAVAILABLE',
  ENOTDIR: 'VOLUME_UNAVAILABLE',
  ESTALE: 'VOLUME_UNAVAILABLE',
  EBUSY: 'VOLUME_UNSAFE',
  EXDEV: 'VOLUME_UNSAFE',
  EISDIR: 'FOREIGN_OBJECT',
  ENOTEMPTY: 'FOREIGN_OBJECT',
}

/** A failed system call in words: `cannot write /tls/..tmp-1: no space left on device (ENOSPC)`. What is no system error is returned as it is. */
export function diskError(doing: string, path: string, cause: unknown): unknown {
  const code = systemCode(cause)
  if (cause instanceof SidecarError || code === undefined) return cause
  const why = code === 'EBUSY' || code === 'EXDEV' ? MOUNTED : reasonOf(cause)
  return new SidecarError(CODES[code] ?? 'WRITE_FAILED', `cannot ${doing} ${path}: ${why} (${code})`, { cause })
}

const MOUNTED = 'it is a mount of its own, and nothing can be renamed over a mount; mount the directory instead'

function reasonOf(cause: unknown): string {
  const errno = cause instanceof Error && 'errno' in cause ? cause.errno : undefined
  return typeof errno === 'number' ? getSystemErrorMessage(errno) : 'system error'
}
