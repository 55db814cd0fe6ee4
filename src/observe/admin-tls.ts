import { hash, X509Certificate } from 'node:crypto'
import type { Server } from 'node:https'
import { createSecureContext } from 'node:tls'
import { fingerprintOf } from '../core/bundle.ts'
import { SidecarError, systemCode, toSidecarError } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { Emit } from './events.ts'

/** Config `admin.tls`: PEM files, absolute paths. */
export interface AdminTls {
  readonly certFile: string
  readonly keyFile: string
  /** When given, clients must present a certificate of this CA. */
  readonly clientCaFile?: string | undefined
}

export interface TlsKeeper extends Disposable {
  /** Looks at the files now, and takes them into use where they changed and fit. Never rejects. */
  look(): Promise<void>
}

const RETRY_MS = 1000

/**
 * Keeps the certificate of a running server the one in the files; connections stay. Files that are missing or do not fit leave the
 * one in use in place, are told once, and looked at again every second, as they may be in the middle of being replaced.
 * Without any certificate yet, handshakes fail: the files may be ones that certferry is about to write.
 */
export function keepTls(
  server: Pick<Server, 'setSecureContext'>,
  files: AdminTls,
  { emit, checkMs }: { emit: Emit; checkMs: number },
): TlsKeeper {
  const { certFile } = files
  let inUse: string | undefined
  let told: string | undefined
  let timer: NodeJS.Timeout | undefined
  let isOpen = true

  const look = async () => {
    clearTimeout(timer)
    try {
      const { identity, context, leaf } = readTls(files)
      if (identity !== inUse) {
        server.setSecureContext(context)
        emit('admin.tls-loaded', {
          certFile,
          fingerprint: fingerprintOf(leaf),
          notAfter: leaf.validToDate.getTime(),
        })
      }
      inUse = identity
      told = undefined
    } catch (error) {
      const { code, message } = toSidecarError(error)
      if (message !== told) emit('admin.tls-failed', { certFile, code, message })
      told = message
    }
    clearTimeout(timer)
    if (isOpen) timer = setTimeout(look, told === undefined ? checkMs : Math.min(RETRY_MS, checkMs)).unref()
  }
  return {
    look,
    [Symbol.dispose]() {
      isOpen = false
      clearTimeout(timer)
    },
  }
}

/** Reads the files and tries them as a server would. Throws ADMIN_TLS, which says what is wrong and nothing of the key. */
function readTls({ certFile, keyFile, clientCaFile }: AdminTls) {
  const [cert, key, ca] = [certFile, keyFile, clientCaFile].map(read)
  const context = { ...(cert && { cert }), ...(key && { key }), ...(ca && { ca }) }
  try {
    const leaf = new X509Certificate(cert ?? '')
    createSecureContext(context)
    const identity = [cert, key, ca].map((content) => hash('sha256', content ?? '')).join(' ')
    return { identity, context, leaf }
  } catch (error) {
    const files = [certFile, keyFile, clientCaFile].filter((file) => file !== undefined).join(', ')
    throw new SidecarError('ADMIN_TLS', `${files} do not make a TLS server: ${systemCode(error)}`)
  }
}

function read(file: string | undefined): Buffer | undefined {
  if (file === undefined) return undefined
  try {
    return readPlainFile(file)
  } catch (cause) {
    throw new SidecarError('ADMIN_TLS', `${file} cannot be read: ${systemCode(cause)}`, { cause })
  }
}
