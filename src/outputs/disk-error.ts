import { constants } from 'node:os'
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
  if (cause instanceof SidecarError || systemCode(cause) === undefined) return cause
  const name = errnoName(cause)
  const why = name === 'EBUSY' || name === 'EXDEV' ? MOUNTED : reasonOf(name, cause)
  return new SidecarError(CODES[name] ?? 'WRITE_FAILED', `cannot ${doing} ${path}: ${why} (${name})`, { cause })
}

const MOUNTED = 'it is a mount of its own, and nothing can be renamed over a mount; mount the directory instead'

/** Node names only errors that libuv knows; these two it calls `Unknown system error -122` and so on. */
const UNKNOWN_TO_NODE = { EDQUOT: 'disk quota exceeded', ESTALE: 'stale file handle' } as const

function errnoName(cause: unknown): string {
  const unknown = (['EDQUOT', 'ESTALE'] as const).find((name) => -constants.errno[name] === errnoOf(cause))
  return unknown ?? systemCode(cause) ?? ''
}

function reasonOf(name: string, cause: unknown): string {
  const errno = errnoOf(cause)
  if (name === 'EDQUOT' || name === 'ESTALE') return UNKNOWN_TO_NODE[name]
  return errno === undefined ? 'system error' : getSystemErrorMessage(errno)
}

const errnoOf = (cause: unknown): number | undefined =>
  cause instanceof Error && 'errno' in cause && typeof cause.errno === 'number' ? cause.errno : undefined
