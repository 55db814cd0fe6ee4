import { hash, X509Certificate } from 'node:crypto'
import type { Server } from 'node:https'
import { createSecureContext } from 'node:tls'
import { delayMs } from '../core/backoff.ts'
import { fingerprintOf } from '../core/bundle.ts'
import { SidecarError, systemCode, toSidecarError } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { EventMap } from './events.ts'

/** PEM files, absolute paths. */
export interface TlsFiles {
  readonly certFile: string
  readonly keyFile: string
  /** When given, clients must present a certificate of this CA. */
  readonly clientCaFile?: string | undefined
}

export interface TlsKeeperOptions {
  /** Asked for at each look. */
  readonly files: () => TlsFiles
  /** Of the error where the files are of no use. */
  readonly code: 'ADMIN_TLS' | 'INJECTOR_TLS'
  readonly checkMs: number
  /** Whoever connects must be able to trust a certificate before it is shown: what this throws leaves the one in use in place. */
  readonly admit?: (certificate: Buffer) => Promise<void>
  readonly onLoaded: (event: EventMap['admin.tls-loaded']) => void
  readonly onFailed: (event: EventMap['admin.tls-failed']) => void
}

export interface TlsKeeper extends Disposable {
  /**
   * Looks at the files now, and takes them into use where they changed and fit; one look after the other. Never rejects: resolves with what
   * kept them out of use.
   */
  look(): Promise<SidecarError | undefined>
}

const RETRY_MS = 1000
const MOST_MS = 60_000

/**
 * Keeps the certificate of a running server the one in the files; connections stay. Files that are missing or do not fit leave the
 * one in use in place, are told once, and looked at again every second, as they may be in the middle of being replaced.
 * Without any certificate yet, handshakes fail: the files may be ones that certferry is about to write.
 */
export function keepTls(server: Pick<Server, 'setSecureContext'>, options: TlsKeeperOptions): TlsKeeper {
  const { files, code, checkMs, admit = async () => {}, onLoaded, onFailed } = options
  let inUse: string | undefined
  let told: string | undefined
  let failures = 0
  let timer: NodeJS.Timeout | undefined
  let isOpen = true
  let looking: Promise<SidecarError | undefined> = Promise.resolve(undefined)

  const look = () => {
    looking = looking.then(lookOnce)
    return looking
  }
  const lookOnce = async () => {
    clearTimeout(timer)
    const failure = await load(files())
    clearTimeout(timer)
    if (isOpen) timer = setTimeout(look, failure ? retryMs(failure) : checkMs).unref()
    return failure
  }
  const load = async (from: TlsFiles): Promise<SidecarError | undefined> => {
    try {
      const { identity, context, leaf } = readTls(from, code)
      if (identity !== inUse) {
        await admit(context.cert)
        if (!isOpen) return undefined
        server.setSecureContext(context)
        onLoaded({
          certFile: from.certFile,
          fingerprint: fingerprintOf(leaf),
          notAfter: leaf.validToDate.getTime(),
        })
      }
      inUse = identity
      told = undefined
      failures = 0
      return undefined
    } catch (thrown) {
      const error = toSidecarError(thrown)
      if (isOpen && error.message !== told)
        onFailed({ certFile: from.certFile, code: error.code, message: error.message })
      told = error.message
      failures += 1
      return error
    }
  }
  /** Looking at files costs nothing; whoever admits them is asked less and less often. */
  const retryMs = ({ code: failed, kind, retryAfterMs }: SidecarError) =>
    failed === code
      ? Math.min(RETRY_MS, checkMs)
      : Math.min(delayMs({ retry: kind.retry, failures, retryAfterMs }, Math.random), MOST_MS)
  return {
    look,
    [Symbol.dispose]() {
      isOpen = false
      clearTimeout(timer)
    },
  }
}

/** Reads the files and tries them as a server would. Throws `code`, with what is wrong and nothing of the key. */
function readTls({ certFile, keyFile, clientCaFile }: TlsFiles, code: TlsKeeperOptions['code']) {
  const cert = read(certFile, code)
  const key = read(keyFile, code)
  const ca = clientCaFile === undefined ? undefined : read(clientCaFile, code)
  const context = { cert, key, ...(ca && { ca }), minVersion: 'TLSv1.2' as const }
  try {
    const leaf = new X509Certificate(cert)
    createSecureContext(context)
    const identity = [cert, key, ca].map((content) => hash('sha256', content ?? '')).join(' ')
    return { identity, context, leaf }
  } catch (error) {
    const files = [certFile, keyFile, clientCaFile].filter((file) => file !== undefined).join(', ')
    throw new SidecarError(code, `${files} do not make a TLS server: ${systemCode(error)}`)
  }
}

function read(file: string, code: TlsKeeperOptions['code']): Buffer {
  try {
    return readPlainFile(file)
  } catch (cause) {
    throw new SidecarError(code, `${file} cannot be read: ${systemCode(cause)}`, { cause })
  }
}
