import * as z from 'zod'
import { Duration } from '../core/units.ts'
import { AUTO, CHECKS } from './revocation.ts'

const HttpUrl = z.url({ protocol: /^https?$/, error: 'must be a URL such as http://ocsp.example.com' })

export const RevocationOptions = z.strictObject({
  check: z
    .union([z.enum(['auto', 'none']), z.array(z.enum(CHECKS)).min(1)], {
      error: `must be auto, none, or a list of ${CHECKS.join(', ')}, such as [ocsp, crl]`,
    })
    .default('auto')
    .describe(
      `auto, none, or a list such as [ocsp, crl]: who is asked, in this order, until one can say; ocsp the responder, crl the list that the certificate names, vault the mount that issued it. auto: ${AUTO.join(', ')}, as far as there are such`,
    ),
  every: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
    .prefault('10m')
    .describe('How often the certificate in service is asked about'),
  onRevoked: z
    .enum(['rotate', 'warn'])
    .default('rotate')
    .describe('rotate replaces a certificate that was revoked at once, and never goes back to it; warn only tells'),
  ocspUrl: HttpUrl.optional().describe('OCSP responder, in place of the one that the certificate names'),
  crlUrl: HttpUrl.optional().describe('Revocation list, in place of the one that the certificate names'),
  stapleRequired: z
    .boolean()
    .default(true)
    .describe(
      'Where an output writes an OCSP response: a new certificate waits for one, unless that in service is about to end',
    ),
})
export type RevocationOptions = z.output<typeof RevocationOptions>
