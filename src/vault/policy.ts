import type { Finding } from '../core/finding.ts'
import type { Vault } from './client.ts'

/** What it takes to send a request. */
export interface Need {
  readonly method: 'GET' | 'POST'
  readonly path: string
}

/** Whether the policies of the token allow a request, asked without sending it. */
export async function examinePolicy(
  vault: Pick<Vault, 'capabilities'>,
  { method, path }: Need,
  signal: AbortSignal,
): Promise<Finding> {
  const request = `${method} ${path}`
  const granted = await vault.capabilities(path.split('/'), signal)
  const wanted = method === 'GET' ? 'read' : 'update'
  if (!granted) {
    return {
      ok: undefined,
      what: `this token may not ask what it may do, so whether the policy allows ${request} is not known`,
      fix: 'For the doctor only: path "sys/capabilities-self" { capabilities = ["update"] }',
    }
  }
  if (granted.includes(wanted) || granted.includes('root')) return { ok: true, what: `the policy allows ${request}` }
  return {
    ok: false,
    what: `the policy does not allow ${request} (granted: ${granted.join(', ')})`,
    fix: `path "${path}" { capabilities = ["${wanted}"] }`,
  }
}
