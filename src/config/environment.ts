import { isRecord, type Path, type Problem } from './problems.ts'
import { fromVariables } from './vault-variables.ts'

export type Env = Readonly<Record<string, string | undefined>>

/** What the environment adds to a config file. */
export interface Filled {
  /** The config with the additions; the file wins. */
  readonly value: unknown
  /** Variables that make the config unusable. */
  readonly troubles: readonly string[]
  /** Variables that somebody set in vain. */
  readonly warnings: readonly string[]
  /** Says which variable a problem came from, where it is not from the file. */
  blame(problem: Problem): Problem
}

/** Only for a config that asks Vault for something: `VAULT_ADDR` alone, in the shell of whoever tries `dev-ca`, means nothing. */
export function withVaultEnv(value: unknown, env: Env): Filled {
  const untouched = { value, troubles: [], warnings: [], blame: (problem: Problem) => problem }
  if (!isRecord(value) || !asksVault(value)) return untouched
  const given = value.vault
  const inFile = isRecord(given) ? given : {}
  const { filled, refused: troubles, ignored: warnings } = fromVariables(env, inFile)
  const isFillable = given === undefined ? filled.has('address') : isRecord(given)
  if (!isFillable) return { ...untouched, troubles, warnings }
  const added = Object.fromEntries([...filled].map(([key, from]) => [key, from.value]))
  return {
    value: { ...value, vault: { ...inFile, ...added } },
    troubles,
    warnings,
    blame: (problem) => {
      const from = [...filled.values()].find(({ path }) => isBelow(problem.path, path))
      if (!from) return problem
      return { ...problem, message: `${problem.message} (from ${from.variable})` }
    },
  }
}

const isBelow = (path: string, top: string) =>
  path === top || (path.startsWith(top) && /^[.[]/.test(path.slice(top.length)))

const asksVault = (config: Record<string, unknown>): boolean =>
  config.vault !== undefined ||
  config.exec !== undefined ||
  asksOf(config).some(({ connection }) => connection === undefined)

/** Who wants something of Vault, and over which connection: undefined for the one without a name. */
export function asksOf({ certificates, secrets }: Record<string, unknown>): { path: Path; connection: unknown }[] {
  const from = (path: Path, asked: unknown) =>
    isRecord(asked) && typeof asked.kind === 'string' && asked.kind.startsWith('vault-')
      ? [{ path, connection: asked.vault }]
      : []
  const list = (value: unknown) => (Array.isArray(value) ? value : []).map((each) => (isRecord(each) ? each : {}))
  return [
    ...list(certificates).flatMap(({ source, fallback }, index) => [
      ...from(['certificates', index, 'source'], source),
      ...list(fallback).flatMap((one, position) => from(['certificates', index, 'fallback', position], one)),
    ]),
    ...list(secrets).flatMap(({ values }, index) =>
      Object.entries(isRecord(values) ? values : {}).flatMap(([name, value]) =>
        from(['secrets', index, 'values', name], value),
      ),
    ),
  ]
}
