import { isRecord, type Path, type Problem } from './problems.ts'

export type Env = Readonly<Record<string, string | undefined>>

/** Keys of `vault` that a variable fills in where the file leaves them out; the names are those of the vault CLI. */
export const VAULT_VARIABLES: Readonly<Record<string, string>> = {
  address: 'VAULT_ADDR',
  caFile: 'VAULT_CACERT',
  clientCertFile: 'VAULT_CLIENT_CERT',
  clientKeyFile: 'VAULT_CLIENT_KEY',
  serverName: 'VAULT_TLS_SERVER_NAME',
  namespace: 'VAULT_NAMESPACE',
}

/** What the environment adds to a config file. */
export interface Filled {
  /** The config with the additions; the file wins. */
  readonly value: unknown
  /** Variables that make the config unusable. */
  readonly troubles: readonly string[]
  /** Says which variable a problem came from, where it is not from the file. */
  blame(problem: Problem): Problem
}

/** Only for a config that asks Vault for something: `VAULT_ADDR` alone, in the shell of whoever tries `dev-ca`, means nothing. */
export function withVaultEnv(value: unknown, env: Env): Filled {
  if (!isRecord(value) || !asksVault(value)) return { value, troubles: [], blame: (problem) => problem }
  const given = value.vault
  const troubles = isTrue(env.VAULT_SKIP_VERIFY) ? [SKIP_VERIFY] : []
  const filled = new Map<string, unknown>(
    Object.entries(VAULT_VARIABLES).flatMap(([key, name]) => (env[name] ? [[key, env[name]]] : [])),
  )
  if (env.VAULT_TOKEN) filled.set('auth', { kind: 'token', token: env.VAULT_TOKEN })
  const isFillable = given === undefined ? filled.has('address') : isRecord(given)
  if (!isFillable) return { value, troubles, blame: (problem) => problem }
  const inFile = isRecord(given) ? given : {}
  return {
    value: { ...value, vault: { ...Object.fromEntries(filled), ...inFile } },
    troubles,
    blame: (problem) => {
      const key = /^vault\.(\w+)/.exec(problem.path)?.[1] ?? ''
      if (!filled.has(key) || Object.hasOwn(inFile, key)) return problem
      return { ...problem, message: `${problem.message} (from ${VAULT_VARIABLES[key] ?? 'VAULT_TOKEN'})` }
    },
  }
}

const SKIP_VERIFY =
  'VAULT_SKIP_VERIFY is set; certferry does not talk to a Vault it cannot authenticate. Unset it and give vault.caFile (VAULT_CACERT)'

const asksVault = (config: Record<string, unknown>): boolean =>
  config.vault !== undefined || asksOf(config).some(({ connection }) => connection === undefined)

/** Who wants something of Vault, and over which connection: undefined for the one without a name. */
export function asksOf({ certificates, secrets }: Record<string, unknown>): { path: Path; connection: unknown }[] {
  const from = (path: Path, asked: unknown) =>
    isRecord(asked) && typeof asked.kind === 'string' && asked.kind.startsWith('vault-')
      ? [{ path, connection: asked.vault }]
      : []
  const list = (value: unknown) => (Array.isArray(value) ? value : []).map((each) => (isRecord(each) ? each : {}))
  return [
    ...list(certificates).flatMap(({ source }, index) => from(['certificates', index, 'source'], source)),
    ...list(secrets).flatMap(({ values }, index) =>
      Object.entries(isRecord(values) ? values : {}).flatMap(([name, value]) =>
        from(['secrets', index, 'values', name], value),
      ),
    ),
  ]
}

const isTrue = (text: string | undefined) => text !== undefined && /^(?:1|t|true)$/i.test(text)
