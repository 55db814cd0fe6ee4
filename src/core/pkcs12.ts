import { createPrivateKey } from 'node:crypto'
import type { SafeBag } from 'pkijs'
import { SidecarError } from '../errors.ts'
import { pem } from './csr.ts'
import type { Secret } from './secret.ts'

/** What a PKCS#12 file holds, in PEM. */
export interface Pkcs12 {
  readonly key: string
  /** The certificate of the key first, as far as the file has that order. */
  readonly certificates: readonly string[]
}

/** RFC 7292 §4.2. */
const BAG = {
  key: '1.2.840.113549.1.12.10.1.1',
  shroudedKey: '1.2.840.113549.1.12.10.1.2',
  certificate: '1.2.840.113549.1.12.10.1.3',
} as const

/**
 * Reads a PKCS#12 file of today's algorithms (PBES2). `place` says where it lies. Throws PKCS12_INVALID for a wrong password, for one in the
 * algorithms of old (RC2, 3DES), and for what is none.
 */
export async function readPkcs12(bytes: Buffer, password: Secret | undefined, place: string): Promise<Pkcs12> {
  const { PFX, PKCS8ShroudedKeyBag, PrivateKeyInfo, CertBag, Certificate } = await import('pkijs')
  const secret = new Uint8Array(Buffer.from(password?.reveal() ?? '')).buffer
  const fail = (why: string) => new SidecarError('PKCS12_INVALID', `${place}: ${why}`)
  const bags = await openBags()
  const key = await keyIn(bags)
  const certificates = bags.flatMap(({ bagId, bagValue }) =>
    bagId === BAG.certificate && bagValue instanceof CertBag && bagValue.parsedValue instanceof Certificate
      ? [pem('CERTIFICATE', Buffer.from(bagValue.parsedValue.toSchema(true).toBER(false)))]
      : [],
  )
  if (!key) throw fail('it holds no private key')
  return { key, certificates }

  async function openBags(): Promise<readonly SafeBag[]> {
    let pfx: InstanceType<typeof PFX>
    try {
      pfx = PFX.fromBER(new Uint8Array(bytes))
    } catch {
      throw fail('it is no PKCS#12 file')
    }
    try {
      await pfx.parseInternalValues({ password: secret, checkIntegrity: true })
    } catch {
      throw fail('it does not open with this password')
    }
    const safe = pfx.parsedValue?.authenticatedSafe
    const parts = safe?.safeContents.map(() => ({ password: secret })) ?? []
    try {
      await safe?.parseInternalValues({ safeContents: parts })
    } catch {
      throw fail('it is encrypted in a way that is not read; write it anew with openssl pkcs12 -export, of OpenSSL 3')
    }
    const contents: { value: { safeBags: SafeBag[] } }[] = safe?.parsedValue?.safeContents ?? []
    return contents.flatMap(({ value }) => value.safeBags)
  }

  async function keyIn(bags: readonly SafeBag[]): Promise<string | undefined> {
    for (const { bagId, bagValue } of bags) {
      if (bagId === BAG.key && bagValue instanceof PrivateKeyInfo) return pkcs8(bagValue)
      if (bagId !== BAG.shroudedKey || !(bagValue instanceof PKCS8ShroudedKeyBag)) continue
      try {
        // The type says it is protected; it is the way the package documents.
        await Reflect.apply(Reflect.get(bagValue, 'parseInternalValues'), bagValue, [{ password: secret }])
      } catch {
        throw fail(
          'its key is encrypted in a way that is not read; write it anew with openssl pkcs12 -export, of OpenSSL 3',
        )
      }
      if (bagValue.parsedValue) return pkcs8(bagValue.parsedValue)
    }
    return undefined
  }
}

const pkcs8 = (info: { toSchema(): { toBER(sizeOnly: boolean): ArrayBuffer } }): string =>
  createPrivateKey({ key: Buffer.from(info.toSchema().toBER(false)), format: 'der', type: 'pkcs8' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString()
