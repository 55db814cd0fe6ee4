import type { Environment } from './child.ts'

/** Names under which logins to Vault (or OpenBao) are handed over, here and by other tools: VAULT_TOKEN, VAULT_SECRET_ID, VAULT_CLIENT_KEY … */
const CREDENTIAL =
  /^(?:VAULT|BAO)_(?:\w*_)?(?:TOKEN|SECRET|SECRET_ID|ROLE_ID|PASSWORD|PASSPHRASE|JWT|KEY|CREDENTIALS?)(?:_FILE|_PATH)?$/i

/**
 * The whole environment of the command: that of certferry, without what certferry logs in with, and with `additions`. Left out are names like
 * VAULT_TOKEN, all that begin with CERTFERRY_, and `withheld`; what is added by one of these names is there. So is `_`, in which a shell says
 * which program it has started.
 */
export function childEnvironment(
  own: Readonly<Record<string, string | undefined>>,
  additions: Environment,
  withheld: Iterable<string> = [],
): Record<string, string> {
  const without = new Set(['_', ...withheld])
  const isKept = (name: string) => !CREDENTIAL.test(name) && !/^CERTFERRY_/i.test(name) && !without.has(name)
  const kept = Object.entries(own).flatMap(([name, value]) =>
    value !== undefined && isKept(name) ? [[name, value]] : [],
  )
  return { ...Object.fromEntries(kept), ...additions }
}
