import { createPrivateKey, X509Certificate } from 'node:crypto'
import * as z from 'zod'
import { quote } from '../../core/secret.ts'
import { SidecarError } from '../../errors.ts'
import { MountPath, PathSegment } from '../paths.ts'
import { type ClientFiles, defineAuth, loginFrom } from './auth.ts'
import { fingerprintOf, readSource } from './credential.ts'

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/cert#login-with-tls-certificate-method */
export const cert = defineAuth({
  kind: 'cert',
  summary:
    'Logs in with the client certificate that the connection presents: the files of vault.clientCertFile and clientKeyFile, as they are at each login.',
  options: z.strictObject({
    mount: MountPath.prefault('cert').describe('Where the auth method is mounted, without auth/'),
    name: PathSegment.optional().describe(
      'Role of the auth method; by default whichever the certificate fits, which Vault has to try one by one',
    ),
  }),
  create: ({ mount, name }, { ask, reconnect, clientFiles }) => ({
    prepare: async () => {
      if (!clientFiles)
        throw new SidecarError('AUTH_SOURCE', 'vault.clientCertFile and vault.clientKeyFile are not given')
      const { fingerprint, told } = readPair(clientFiles)
      return {
        fingerprint,
        login: async (signal) => {
          // A connection keeps showing the certificate with which it was opened, and may live for as long as it is used.
          await reconnect()
          const path = `auth/${mount}/login`
          const reply = await ask({ operation: 'login', method: 'POST', path, body: { name } }, signal)
          return loginFrom({ ...reply, told: `${reply.told}; ${clientFiles.certFile} ${told}` })
        },
      }
    },
  }),
})

/** Throws AUTH_SOURCE unless both are there and belong together, as they do not while they are being replaced. */
function readPair({ certFile, keyFile }: ClientFiles) {
  const [certPem, keyPem] = [readSource(certFile), readSource(keyFile)]
  const certificate = parsed(certPem, keyPem)
  if (!certificate)
    throw new SidecarError('AUTH_SOURCE', `${certFile} and ${keyFile} are not a certificate and its key`)
  return { fingerprint: fingerprintOf(certPem, keyPem), told: claimsOf(certificate) }
}

function parsed(certPem: string, keyPem: string): X509Certificate | undefined {
  try {
    const certificate = new X509Certificate(certPem)
    return certificate.checkPrivateKey(createPrivateKey(keyPem)) ? certificate : undefined
  } catch {
    // The cause is dropped on purpose: OpenSSL errors may quote the input.
    return undefined
  }
}

/** Of a certificate that it refuses Vault says no more than that no constraint fits. */
const claimsOf = ({ subject, issuer, validToDate }: X509Certificate) =>
  quote(
    `holds a certificate of ${subject || 'nobody'}, issued by ${issuer}, valid until ${validToDate.toISOString()}`,
    500,
  )
