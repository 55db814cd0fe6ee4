import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { type Config, loadConfig } from '../../src/config/config.ts'
import { ConfigError } from '../../src/config/problems.ts'

export const folder = mkdtempSync(join(tmpdir(), 'certferry-config-'))
after(() => rmSync(folder, { recursive: true, force: true }))

type Env = Readonly<Record<string, string | undefined>>

/** A config file with this text, mode 0600. */
export function fileWith(text: string, name = 'c.yaml'): string {
  const file = join(folder, name)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

export const load = (text: string, env: Env = {}): Config => loadConfig(fileWith(text), env)

/** The ConfigError for this text; fails where the config is accepted. */
export function errorOf(text: string, env: Env = {}): ConfigError {
  const file = fileWith(text)
  try {
    loadConfig(file, env)
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error))
    return error
  }
  return assert.fail(`accepted:\n${text}`)
}

/** Each problem as it is printed, without the folder: `c.yaml:4:39  certificates[0].…: must …`. */
export const problemsOf = (text: string, env: Env = {}): string[] =>
  errorOf(text, env)
    .message.split('\n')
    .slice(1)
    .map((line) => line.trim().replaceAll(`${folder}/`, ''))

/** Lines 1 to 4 of a config with one certificate; what is added comes after them. */
export const withOutputs = (outputs: string, rest = ''): string => `certificates:
  - name: web
    source: { kind: dev-ca, directory: /ca, commonName: a.example }
    outputs: ${outputs}
${rest}`
export const PEM = '[{ kind: pem, directory: /tls }]'
export const withMore = (rest: string): string => withOutputs(PEM, rest)
export const withSource = (source: string): string => withMore('').replace(/source: .*/, `source: ${source}`)
export const withVault = (vault: string): string =>
  `vault: ${vault}\n${withSource('{ kind: vault-pki, role: web, commonName: a.example }')}`
