import type { OpenTarget } from '../target.ts'

/** Loaded when opened: coverage counts only what is loaded after it was started. */
export const TARGETS: Readonly<Record<string, OpenTarget>> = {
  config: async () => (await import('./config.ts')).openConfig(),
  pem: async () => (await import('./pem.ts')).openPem(),
  'vault-reply': async () => (await import('./vault-reply.ts')).openVaultReply(),
  template: async () => (await import('./template.ts')).openTemplate(),
  'http-request': async () => (await import('./http-request.ts')).openHttpRequest(),
}
