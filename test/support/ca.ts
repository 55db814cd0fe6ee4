import 'reflect-metadata'
import { type KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import * as x509 from '@peculiar/x509'
import { type Bundle, toBundle } from '../../src/core/bundle.ts'
import { createCsr } from '../../src/core/csr.ts'
import { integer } from '../../src/core/der.ts'
import { generateKey, type KeyAlgorithm } from '../../src/core/key.ts'

x509.cryptoProvider.set(webcrypto)

export interface TestCa {
  readonly root: X509Certificate
  readonly rootPem: string
  /** A certificate with its key, signed by the root, or by an intermediate of its own with `withIntermediate`. */
  issue(request?: IssueRequest): Promise<Issued>
  /** Signs a PKCS#10 request as Vault's `sign` endpoint would: subject, names and key are taken from it. */
  sign(csrPem: string, request?: Pick<IssueRequest, 'notBefore' | 'notAfter' | 'withIntermediate'>): Promise<Signed>
  /** A revocation list of the root, or of its intermediate, in DER. */
  crl(request?: CrlRequest): Promise<Buffer>
}

export interface CrlRequest {
  /** CRL number, by default 1; null for none. */
  readonly number?: number | null
  /** Makes it a delta to the complete list of this number. */
  readonly base?: number
  /** Serial numbers, hexadecimal. */
  readonly revoked?: readonly string[]
  /** By default 30 s ago. */
  readonly thisUpdate?: Date
  /** By default in an hour; null for none. */
  readonly nextUpdate?: Date | null
  readonly withIntermediate?: boolean
  /** Further critical extensions: their values in DER, by OID. */
  readonly critical?: Readonly<Record<string, Buffer>>
}

export interface IssueRequest {
  readonly commonName?: string
  /** DNS names, IP addresses and URIs; by default the common name. */
  readonly altNames?: readonly string[]
  /** By default 30 s ago, as Vault backdates. */
  readonly notBefore?: Date
  /** By default in an hour. */
  readonly notAfter?: Date
  readonly algorithm?: KeyAlgorithm
  readonly withIntermediate?: boolean
  /** Becomes `bundle.origin`; `test-ca` unless given. */
  readonly origin?: string
}

export interface Signed {
  readonly certificatePem: string
  /** Issuers from the nearest to the root. */
  readonly chainPems: readonly string[]
}

export interface Issued extends Signed {
  readonly keyPem: string
  readonly bundle: Bundle
}

interface Authority {
  readonly certificate: x509.X509Certificate
  readonly keys: webcrypto.CryptoKeyPair
}

interface CaRequest {
  readonly commonName?: string
  readonly notAfter?: Date
}

/** A CA made on the spot: EC P-256, valid for ten years, fast enough to make one per test. */
export async function createTestCa({ commonName = 'Test Root', ...validity }: CaRequest = {}): Promise<TestCa> {
  const root = await createAuthority({ commonName, ...validity })
  let intermediate: Promise<Authority> | undefined
  const issuer = async (withIntermediate = false) => {
    if (!withIntermediate) return { authority: root, chain: [root] }
    const name = commonName.replace(/Root$/, '').concat(' Intermediate').trim()
    intermediate ??= createAuthority({ commonName: name, ...validity }, root)
    const authority = await intermediate
    return { authority, chain: [authority, root] }
  }

  const sign: TestCa['sign'] = async (csrPem, { notBefore, notAfter, withIntermediate } = {}) => {
    const csr = new x509.Pkcs10CertificateRequest(csrPem)
    const { authority, chain } = await issuer(withIntermediate)
    const names = csr.getExtension(SUBJECT_ALT_NAME)
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      subject: csr.subjectName,
      issuer: authority.certificate.subjectName,
      notBefore: notBefore ?? new Date(Date.now() - 30_000),
      notAfter: notAfter ?? new Date(Date.now() + 3_600_000),
      publicKey: csr.publicKey,
      signingKey: authority.keys.privateKey,
      signingAlgorithm: SIGNATURE,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        ...(names ? [names] : []),
      ],
    })
    return { certificatePem: pemOf(certificate), chainPems: chain.map((ca) => pemOf(ca.certificate)) }
  }

  const crl: TestCa['crl'] = async ({
    number = 1,
    base,
    revoked = [],
    thisUpdate = new Date(Date.now() - 30_000),
    nextUpdate = new Date(Date.now() + 3_600_000),
    withIntermediate,
    critical = {},
  } = {}) => {
    const { authority } = await issuer(withIntermediate)
    const list = await x509.X509CrlGenerator.create({
      issuer: authority.certificate.subjectName,
      thisUpdate,
      ...(nextUpdate && { nextUpdate }),
      // Without a reason the library writes an empty sequence, which is none (RFC 5280 §5.1).
      entries: revoked.map((serialNumber) => ({
        serialNumber,
        revocationDate: thisUpdate,
        reason: x509.X509CrlReason.superseded,
      })),
      signingKey: authority.keys.privateKey,
      signingAlgorithm: SIGNATURE,
      extensions: [
        await x509.AuthorityKeyIdentifierExtension.create(authority.keys.publicKey),
        ...(number === null ? [] : [new x509.Extension(CRL_NUMBER, false, integer(number))]),
        ...(base === undefined ? [] : [new x509.Extension(DELTA_INDICATOR, true, integer(base))]),
        ...Object.entries(critical).map(([oid, value]) => new x509.Extension(oid, true, value)),
      ],
    })
    return Buffer.from(list.rawData)
  }

  return {
    root: new X509Certificate(Buffer.from(root.certificate.rawData)),
    rootPem: pemOf(root.certificate),
    sign,
    crl,
    issue: async (request = {}) => {
      const key = await generateKey(request.algorithm ?? 'ecdsa-p256')
      const signed = await sign(await createCsr(namesOfRequest(request), key), request)
      const bundle = toBundle({
        certificate: signed.certificatePem,
        issuers: signed.chainPems,
        key,
        origin: request.origin ?? 'test-ca',
        receivedAt: Date.now(),
      })
      return { ...signed, keyPem: keyText(key), bundle }
    },
  }
}

const EC_P256 = { name: 'ECDSA', namedCurve: 'P-256' }
const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' }
const SUBJECT_ALT_NAME = '2.5.29.17'
const CRL_NUMBER = '2.5.29.20'
const DELTA_INDICATOR = '2.5.29.27'
const TEN_YEARS_MS = 10 * 365 * 86_400_000

/** A CA certificate, self-signed unless `by` signs it. */
async function createAuthority({ commonName, notAfter }: CaRequest, by?: Authority): Promise<Authority> {
  const keys = await webcrypto.subtle.generateKey(EC_P256, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${commonName}`,
    issuer: by?.certificate.subjectName ?? `CN=${commonName}`,
    notBefore: new Date(Date.now() - 86_400_000),
    notAfter: notAfter ?? new Date(Date.now() + TEN_YEARS_MS),
    publicKey: keys.publicKey,
    signingKey: by?.keys.privateKey ?? keys.privateKey,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new x509.BasicConstraintsExtension(true, by ? 0 : 1, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificate, keys }
}

function namesOfRequest({ commonName = 'test.example.com', altNames = [commonName] }: IssueRequest) {
  return {
    commonName,
    dns: altNames.filter((name) => !isIP(name) && !name.includes('://')),
    ip: altNames.filter((name) => isIP(name)),
    uri: altNames.filter((name) => name.includes('://')),
    email: [],
  }
}

/** Positive and 16 bytes, as DER wants it. */
const serialNumber = () => `4${randomBytes(16).toString('hex').slice(1)}`
const pemOf = (certificate: x509.X509Certificate) => `${certificate.toString('pem')}\n`
const keyText = (key: KeyObject) => String(key.export({ type: 'pkcs8', format: 'pem' }))
