import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFile, readlink, stat } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { TlsContextError } from './error.ts'

export interface SetOptions {
  /** The directory that certferry, a Secret of Kubernetes or anybody else fills. */
  readonly directory: string
  /** Names in the directory; by default `tls.crt` and `tls.key`. Both may name one combined file. */
  readonly files?: { readonly certificate?: string; readonly key?: string }
  /**
   * What the other side is checked against: names in the directory, or absolute paths of other PEM files. By default `ca.crt` of the
   * directory, where there is one; `false` for the roots that come with Node.
   */
  readonly ca?: string | readonly string[] | false
  /** Of an encrypted key. */
  readonly passphrase?: string
}

/** Certificate, key and trust as they were at one moment; `cert`, `key` and `ca` are options of node:tls. */
export interface TlsSet {
  /** PEM: the certificate, and its intermediates. */
  readonly cert: Buffer
  /** PEM. */
  readonly key: Buffer
  /** PEM; undefined for the roots that come with Node. */
  readonly ca: Buffer[] | undefined
  /** The first certificate of `cert`; the key belongs to it. */
  readonly certificate: X509Certificate
  /** Where the files were read: a generation, or the directory itself where it has none. */
  readonly readFrom: string
}

/** Where the files of a set are at this moment. */
export interface Place {
  /** Another one once anything of the set may have changed. */
  readonly signature: string
  /** Of certificate and key. */
  readonly base: string
  readonly certificate: string
  readonly key: string
  readonly ca: readonly string[]
  /** The CA is taken where there is one. */
  readonly isCaOptional: boolean
  /** Each directory is a generation, which never changes: nothing there is half-written. */
  readonly isImmutable: boolean
}

/** What `..data` names never changes; kubelet and certferry swap that link by a rename. */
const DATA_LINK = '..data'
/** Swaps that may go on while one set is read, before that counts as an error. */
const SWAPS = 1000
/** Plain files are written one after another: so often, and with growing pauses, a pair that does not match is read again. */
const READS = 8
const PAUSE_MS = 20

/**
 * Reads one set, never a mix of two:
 * 1. the link `..data` is followed once, and every file is opened in the generation it leads to;
 * 2. where there is no such link, nothing may have changed between before and after the reading;
 * 3. the key must belong to the certificate.
 * A generation that was removed meanwhile is looked for anew. Throws TlsContextError.
 */
export const readSet = async (options: SetOptions): Promise<TlsSet> => (await readPlacedSet(options)).set

/** The same, with the signature of where it was read. */
export async function readPlacedSet(options: SetOptions): Promise<{ set: TlsSet; signature: string }> {
  for (let swaps = 0, reads = 0; ; ) {
    const place = await locate(options)
    const hasMoved = async () => (await locate(options).catch(() => place)).signature !== place.signature
    try {
      const set = await load(place, options.passphrase)
      // A CA that may be missing may also have been removed, with its generation, under our hands.
      if (set.ca || options.ca === false || !(await hasMoved())) return { set, signature: place.signature }
    } catch (error) {
      if (place.isImmutable && (await hasMoved()) && ++swaps < SWAPS) continue
      const isHalfWritten =
        !place.isImmutable && !(error instanceof TlsContextError && error.code === 'TLS_SET_MISSING')
      if (!isHalfWritten || ++reads >= READS) throw error
      await sleep(PAUSE_MS * reads)
    }
  }
}

/** Directories in which a change of the set shows. */
export const directoriesOf = ({ directory, ca = [] }: SetOptions): string[] => [
  ...new Set(
    [directory, ...(ca === false ? [] : [ca].flat().filter(isAbsolute).map(dirname))].map((one) => resolve(one)),
  ),
]

/** Throws TLS_SET_MISSING, TLS_SET_UNREADABLE. */
export async function locate(options: SetOptions): Promise<Place> {
  const { directory, files: { certificate = 'tls.crt', key = 'tls.key' } = {}, ca } = options
  const bases = new Map<string, { readonly base: string; readonly isGeneration: boolean }>()
  for (const one of directoriesOf(options)) bases.set(one, await baseOf(one))
  const pathOf = (name: string) => {
    const path = resolve(directory, name)
    const home = isAbsolute(name) ? dirname(path) : resolve(directory)
    return join(bases.get(home)?.base ?? home, isAbsolute(name) ? basename(path) : name)
  }
  const place = {
    base: bases.get(resolve(directory))?.base ?? directory,
    certificate: pathOf(certificate),
    key: pathOf(key),
    ca: ca === false ? [] : [ca ?? 'ca.crt'].flat().map(pathOf),
    isCaOptional: ca === undefined,
    isImmutable: [...bases.values()].every(({ isGeneration }) => isGeneration),
  }
  return { ...place, signature: await signatureOf(place) }
}

async function baseOf(directory: string): Promise<{ base: string; isGeneration: boolean }> {
  try {
    return { base: resolve(directory, await readlink(join(directory, DATA_LINK))), isGeneration: true }
  } catch (error) {
    // Neither there nor a link: plain files.
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'EINVAL') return { base: directory, isGeneration: false }
    throw unreadable(join(directory, DATA_LINK), error)
  }
}

/** A generation is known by its path; of plain files counts whatever a writer changes. */
async function signatureOf({ certificate, key, ca, isImmutable }: Omit<Place, 'signature'>): Promise<string> {
  const paths = [certificate, key, ...ca]
  if (isImmutable) return paths.join('\n')
  const stats = paths.map(async (path) => {
    const found = await stat(path, { bigint: true }).catch(() => undefined)
    return found ? `${path} ${found.dev} ${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs}` : path
  })
  return (await Promise.all(stats)).join('\n')
}

async function load(place: Place, passphrase: string | undefined): Promise<TlsSet> {
  const [cert, key, ...cas] = await Promise.all([place.certificate, place.key, ...place.ca].map(read))
  if (!cert) throw missing(place.certificate)
  if (!key) throw missing(place.key)
  const noCa = cas.indexOf(undefined)
  if (noCa >= 0 && !place.isCaOptional) throw missing(place.ca[noCa] ?? '')
  if (!place.isImmutable && (await signatureOf(place)) !== place.signature)
    throw new TlsContextError('TLS_SET_UNREADABLE', `the files in ${place.base} change while they are read`)
  const certificate = parseCertificate(cert, place.certificate)
  if (!certificate.checkPrivateKey(parseKey(key, place.key, passphrase)))
    throw new TlsContextError(
      'TLS_PAIR_MISMATCH',
      `the key in ${place.key} does not belong to the certificate in ${place.certificate}`,
    )
  const ca = cas.filter((one) => one !== undefined)
  for (const [index, pem] of ca.entries()) assertCa(pem, place.ca[index] ?? '')
  return { cert, key, ca: ca.length > 0 ? ca : undefined, certificate, readFrom: place.base }
}

async function read(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw unreadable(path, error)
  }
}

function parseCertificate(pem: Buffer, path: string): X509Certificate {
  try {
    return new X509Certificate(pem)
  } catch (cause) {
    throw new TlsContextError('TLS_CERTIFICATE_INVALID', `${path} holds no certificate in PEM`, { cause })
  }
}

function parseKey(pem: Buffer, path: string, passphrase: string | undefined): KeyObject {
  try {
    return createPrivateKey({ key: pem, ...(passphrase === undefined ? {} : { passphrase }) })
  } catch (cause) {
    // Node has no code for it that can be relied on. RFC 7468 §11, and RFC 1421 §4.6.1.1 for older files.
    const isEncrypted = /BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED/.test(pem.toString('latin1'))
    const why =
      isEncrypted && passphrase === undefined
        ? 'is encrypted: give its passphrase'
        : `holds no private key in PEM${passphrase === undefined ? '' : ', or another passphrase opens it'}`
    throw new TlsContextError('TLS_KEY_INVALID', `${path} ${why}`, { cause })
  }
}

/** node:tls would pass over what is no certificate, and then trust nobody. */
function assertCa(pem: Buffer, path: string): void {
  const blocks = pem.toString('latin1').match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? []
  try {
    for (const block of blocks) new X509Certificate(block)
  } catch (cause) {
    throw new TlsContextError('TLS_CA_INVALID', `${path} holds a certificate that cannot be read`, { cause })
  }
  if (blocks.length === 0) throw new TlsContextError('TLS_CA_INVALID', `${path} holds no certificate in PEM`)
}

const missing = (path: string) =>
  new TlsContextError('TLS_SET_MISSING', `${path} is not there: is the directory right, and has it been filled yet?`)

const unreadable = (path: string, cause: unknown) =>
  new TlsContextError('TLS_SET_UNREADABLE', `${path} cannot be read: ${messageOf(cause)}`, { cause })

const codeOf = (error: unknown) => (error instanceof Error && 'code' in error ? error.code : undefined)
export const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error))
