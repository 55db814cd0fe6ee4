import * as z from 'zod'
import { parseCertificates } from '../core/bundle.ts'
import { defineAnchors } from './anchor.ts'

export const systemAnchors = defineAnchors({
  kind: 'system',
  summary: 'The public CAs: those of the system, or those that come with Node.',
  options: z.strictObject({
    store: z
      .enum(['system', 'bundled'])
      .default('system')
      .describe('system: what the operating system trusts; bundled: what came with this Node'),
  }),
  create: ({ store }) => ({
    origin: `system ${store}`,
    read: async () => {
      const { getCACertificates } = await import('node:tls')
      return parseCertificates(getCACertificates(store).join('\n'))
    },
  }),
})
