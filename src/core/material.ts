import { createPrivateKey, type KeyObject } from 'node:crypto'
import { SidecarError } from '../errors.ts'
import { type Bundle, type BundleParts, toBundle } from './bundle.ts'
import type { Instant } from './content.ts'
import { readPkcs12 } from './pkcs12.ts'
import { Secret } from './secret.ts'

/** Content of one place: a file, a field of a Secret, the answer of a URL. */
export interface Piece {
  /** For messages. */
  readonly place: string
  /** Whoever read it overwrites it after use. */
  readonly content: Buffer
}

/** What somebody else wrote down: PEM in one piece or several, or a PKCS#12 file. */
export type Material = { readonly password: Password | undefined } & (
  | {
      readonly certificate: Piece
      /** Undefined where the key stands in `certificate`. */
      readonly key: Piece | undefined
      readonly issuers: readonly Piece[]
    }
  | { readonly pkcs12: Piece; readonly issuers: readonly Piece[] }
)

export interface Password {
  /** For messages. */
  readonly place: string
  readonly value: Secret
}

interface Read {
  readonly origin: string
  readonly receivedAt: Instant
  /** How the config says the place of a key, of a password and of a PKCS#12 file: for messages. */
  readonly options: { readonly key: string; readonly password: string; readonly pkcs12: string }
}

/**
 * The bundle in what somebody else wrote. Throws INPUT_INCOMPLETE for what may not be written to its end yet, INPUT_INVALID for what is
 * something else than it should be, KEY_ENCRYPTED and PKCS12_INVALID for a password that lacks or is wrong.
 */
export async function bundleOf(material: Material, read: Read): Promise<Bundle> {
  const parts = 'pkcs12' in material ? await openPkcs12(material, read) : readPem(material, read)
  const { origin, receivedAt } = read
  const first = 'pkcs12' in material ? material.pkcs12 : material.certificate
  try {
    return toBundle({ ...parts, origin, receivedAt })
  } catch (cause) {
    if (!(cause instanceof SidecarError)) throw cause
    const { key = first } = 'pkcs12' in material ? {} : material
    if (cause.code === 'KEY_MISMATCH')
      throw incomplete(`the private key in ${key.place} belongs to no certificate in ${first.place}`, cause)
    throw new SidecarError('INPUT_INVALID', `${first.place}: ${cause.message}`, { cause })
  }
}

type Parts = Pick<BundleParts, 'certificate' | 'issuers' | 'key'>

function readPem(material: Exclude<Material, { pkcs12: Piece }>, { options }: Read): Parts {
  const { certificate, key, issuers, password } = material
  const text = certificatesIn(certificate, options)
  if (text === '') throw incomplete(`${certificate.place} holds no certificate`)
  const [keyBlock, second] = (key ? [key] : [certificate]).flatMap((piece) => keysIn(piece, options))
  const place = (key ?? certificate).place
  if (!keyBlock)
    throw incomplete(`${place} holds no private key${key ? '' : `; say ${options.key} where it stands elsewhere`}`)
  if (second) throw invalid(`${place} holds more than one private key; keep the one that belongs to the certificate`)
  return {
    certificate: text,
    key: openKey(keyBlock, { place, password, option: options.password }),
    issuers: issuers.map((piece) => certificatesIn(piece, options)),
  }
}

async function openPkcs12(
  { pkcs12, issuers, password }: Extract<Material, { pkcs12: Piece }>,
  { options }: Read,
): Promise<Parts> {
  if (pkcs12.content.length === 0) throw incomplete(`${pkcs12.place} is empty`)
  const found = await readPkcs12(pkcs12.content, password?.value, pkcs12.place).catch((error: unknown) => {
    if (password || !(error instanceof SidecarError) || error.code !== 'PKCS12_INVALID') throw error
    throw new SidecarError('PKCS12_INVALID', `${error.message}; if it has one, say ${options.password}`)
  })
  if (found.certificates.length === 0) throw invalid(`${pkcs12.place} holds a private key, and no certificate`)
  return {
    certificate: found.certificates.join(''),
    key: found.key,
    issuers: issuers.map((piece) => certificatesIn(piece, options)),
  }
}

interface Block {
  readonly label: string
  /** With its first and last line; no copy. */
  readonly bytes: Buffer
}

const certificatesIn = (piece: Piece, options: Read['options']): string =>
  blocksIn(piece, options)
    .filter(({ label }) => /^(?:X509 |TRUSTED )?CERTIFICATE$/.test(label))
    .map(({ bytes }) => `${bytes.toString('latin1').replaceAll(/(?:X509|TRUSTED) (?=CERTIFICATE-----)/g, '')}\n`)
    .join('')

const keysIn = (piece: Piece, options: Read['options']): Block[] =>
  blocksIn(piece, options).filter(({ label }) => label.endsWith('PRIVATE KEY'))

/** RFC 7468. A block without its last line is a file that is being written. */
function blocksIn({ place, content }: Piece, options: Read['options']): Block[] {
  if (content[0] === ASN1_SEQUENCE && !content.includes(BEGIN)) throw notPem(place, content, options)
  const blocks: Block[] = []
  for (let at = content.indexOf(BEGIN); at >= 0; ) {
    const line = content.subarray(at, at + 80).toString('latin1')
    const label = /^-----BEGIN ([A-Z0-9 ]+)-----/.exec(line)?.[1]
    if (label === undefined) throw incomplete(`${place} ends within the first line of a PEM block`)
    const last = `-----END ${label}-----`
    const end = content.indexOf(last, at)
    const next = content.indexOf(BEGIN, at + BEGIN.length)
    if (end < 0 || (next >= 0 && next < end)) throw incomplete(`a ${label} in ${place} has no end`)
    blocks.push({ label, bytes: content.subarray(at, end + last.length) })
    at = next
  }
  return blocks
}

const BEGIN = '-----BEGIN '
/** With which every DER of a certificate, a key and a PKCS#12 file begins (X.690 §8.9). */
const ASN1_SEQUENCE = 0x30
/** PFX ::= SEQUENCE { version INTEGER 3, … } (RFC 7292 §4). */
const PFX_VERSION = Buffer.from([2, 1, 3])

/** By how it begins. */
export const isPkcs12 = ({ content }: Pick<Piece, 'content'>): boolean =>
  content[0] === ASN1_SEQUENCE && content.subarray(2, 8).includes(PFX_VERSION)

function notPem(place: string, content: Buffer, options: Read['options']): SidecarError {
  return invalid(
    isPkcs12({ content })
      ? `${place} is a PKCS#12 file, not PEM; give it as ${options.pkcs12}`
      : `${place} is DER, not PEM; convert it: openssl x509 (for a key: openssl pkey) -inform DER -in FILE -out FILE.pem`,
  )
}

function openKey(
  { label, bytes }: Block,
  { place, password, option }: { place: string; password: Password | undefined; option: string },
): KeyObject {
  // RFC 5958 §3, and what OpenSSL wrote before (RFC 1421 §4.6.1.1).
  const isEncrypted = label === 'ENCRYPTED PRIVATE KEY' || bytes.includes('Proc-Type: 4,ENCRYPTED')
  if (isEncrypted && !password)
    throw new SidecarError('KEY_ENCRYPTED', `the private key in ${place} is encrypted; say ${option}`)
  try {
    return createPrivateKey({
      key: bytes,
      format: 'pem',
      ...(isEncrypted && password && { passphrase: password.value.reveal() }),
    })
  } catch {
    // The cause is dropped on purpose: OpenSSL errors may quote the input.
    if (isEncrypted)
      throw new SidecarError(
        'KEY_ENCRYPTED',
        `the private key in ${place} does not open with the password in ${password?.place}`,
      )
    throw invalid(`the ${label} in ${place} does not parse`)
  }
}

/** The password in a file: its first line. */
export const passwordIn = ({ place, content }: Piece): Password => ({
  place,
  value: new Secret(content.toString('utf8').split(/\r?\n/, 1)[0] ?? ''),
})

const incomplete = (message: string, cause?: unknown) => new SidecarError('INPUT_INCOMPLETE', message, { cause })
const invalid = (message: string) => new SidecarError('INPUT_INVALID', message)
