import { createPrivateKey, createPublicKey, type KeyObject, randomBytes } from 'node:crypto'
import type * as X509 from '@peculiar/x509'
import { keyPem, parseCertificates } from '../core/bundle.ts'
import { generateKey } from '../core/key.ts'
import type { Names } from '../core/names.ts'
import { SidecarError } from '../errors.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import { publishRoot, readOrCreate } from './dev-ca-files.ts'

const ROOT = 'certferry development CA – do not trust in production'
const INTERMEDIATE = 'certferry development intermediate – do not trust in production'
const YEAR_MS = 365 * 86_400_000
const BACKDATED_MS = 30_000

/** The development CA: an intermediate whose key is kept, and a root whose key is not. */
export interface Authority {
  /** PEM, nearest first. */
  readonly chain: readonly string[]
  /** A certificate in PEM. */
  issue(request: LeafRequest): Promise<string>
}

interface LeafRequest {
  readonly names: Names
  readonly key: KeyObject
  readonly notBefore: number
  readonly ttlMs: number
}

/** The CA in `directory`, made when there is none. Several processes may call it at the same time and get the same CA. */
export async function openAuthority(directory: string, now: number): Promise<Authority> {
  const text = await readOrCreate(directory, async () => (await createAuthority(now)).text)
  const parsed = parse(text)
  if (!parsed)
    throw new SidecarError(
      'VOLUME_UNAVAILABLE',
      `${directory} holds no development CA that can be read; remove it, and a new one is made`,
    )
  await publishRoot(directory, parsed.root.toString())
  return authorityOf(parsed)
}

/** The same in a Secret of the own namespace, for several pods. */
export async function openSharedAuthority(
  api: Kubernetes,
  name: string,
  now: number,
  signal: AbortSignal,
): Promise<Authority> {
  const { readOrCreateInSecret } = await import('./dev-ca-secret.ts')
  const parsed = parse(await readOrCreateInSecret(api, name, () => createAuthority(now), signal))
  if (parsed) return authorityOf(parsed)
  throw new SidecarError(
    'FOREIGN_OBJECT',
    `Secret ${api.namespace}/${name} holds no development CA that can be read; delete it, and a new one is made`,
  )
}

async function authorityOf({ key, intermediate, root }: Parsed): Promise<Authority> {
  const x509 = await load()
  const issuer = new x509.X509Certificate(intermediate.raw)
  const signingKey = signer(key)
  return {
    chain: [intermediate.toString(), root.toString()],
    issue: async (request) => (await createLeaf(x509, issuer, signingKey, request)).toString('pem'),
  }
}

/** Costs 100 ms and more, so it stays off the start path. Its decorators need reflect-metadata to be there first. */
async function load(): Promise<typeof X509> {
  await import('reflect-metadata')
  return import('@peculiar/x509')
}

type Parsed = NonNullable<ReturnType<typeof parse>>

function parse(text: string) {
  try {
    const key = createPrivateKey(text)
    const [intermediate, root] = parseCertificates(text)
    return intermediate?.checkPrivateKey(key) && root ? { key, intermediate, root } : undefined
  } catch {
    return undefined
  }
}

const signer = (key: KeyObject) => key.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])

/** Key of the intermediate, intermediate, root, in PEM. The key of the root is forgotten: nothing needs it again. */
async function createAuthority(now: number) {
  const x509 = await load()
  const [rootKey, key] = await Promise.all([generateKey('ecdsa-p256'), generateKey('ecdsa-p256')])
  const authority = async (name: string, publicKey: KeyObject, pathLength: number) =>
    x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      subject: nameOf(x509, name),
      issuer: nameOf(x509, ROOT),
      notBefore: new Date(now - 86_400_000),
      notAfter: new Date(now + 10 * YEAR_MS),
      publicKey: new x509.PublicKey(spki(publicKey)),
      signingKey: signer(rootKey),
      signingAlgorithm: SIGNATURE,
      extensions: [
        new x509.BasicConstraintsExtension(true, pathLength, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(new x509.PublicKey(spki(publicKey))),
        await x509.AuthorityKeyIdentifierExtension.create(new x509.PublicKey(spki(rootKey))),
      ],
    })
  const root = (await authority(ROOT, rootKey, 1)).toString('pem')
  const intermediate = (await authority(INTERMEDIATE, key, 0)).toString('pem')
  return { text: `${keyPem(key)}${intermediate}\n${root}\n`, root: `${root}\n` }
}

async function createLeaf(
  x509: typeof X509,
  issuer: X509.X509Certificate,
  signingKey: X509.X509CertificateCreateWithKeyParams['signingKey'],
  { names, key, notBefore, ttlMs }: LeafRequest,
) {
  const { digitalSignature, keyEncipherment } = x509.KeyUsageFlags
  const publicKey = new x509.PublicKey(spki(key))
  const altNames = [
    ...names.dns.map((value) => ({ type: 'dns' as const, value })),
    ...names.ip.map((value) => ({ type: 'ip' as const, value })),
    ...names.uri.map((value) => ({ type: 'url' as const, value })),
    ...names.email.map((value) => ({ type: 'email' as const, value })),
  ]
  // Certificates know whole seconds.
  const start = Math.floor(notBefore / 1000) * 1000
  return x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: nameOf(x509, names.commonName),
    issuer: issuer.subjectName,
    notBefore: new Date(start - BACKDATED_MS),
    notAfter: new Date(start + ttlMs),
    publicKey,
    signingKey,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(
        key.asymmetricKeyType === 'rsa' ? digitalSignature | keyEncipherment : digitalSignature,
        true,
      ),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      // RFC 5280 §4.2.1.6: critical where the subject is empty.
      ...(altNames.length > 0
        ? [new x509.SubjectAlternativeNameExtension(altNames, names.commonName === undefined)]
        : []),
    ],
  })
}

/** As an object: a plain string would be read for escapes, and `#` at its start for a hexadecimal value. */
const nameOf = (x509: typeof X509, commonName: string | undefined) =>
  new x509.Name(commonName === undefined ? [] : [{ CN: [{ utf8String: commonName }] }])

const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' }
/** 16 bytes, positive and without a leading zero. */
const serialNumber = () => `4${randomBytes(16).toString('hex').slice(1)}`
const spki = (key: KeyObject) => createPublicKey(key).export({ type: 'spki', format: 'der' })
