import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { withVaultEnv } from '../../src/config/environment.ts'
import { UNUSED_VARIABLES, VAULT_VARIABLES } from '../../src/config/vault-variables.ts'

const certificates = [{ source: { kind: 'vault-pki' } }]
const within = (env: Record<string, string>, vault: unknown = {}) => withVaultEnv({ vault, certificates }, env)
/** `vault` as it is with these variables. */
const vaultOf = (env: Record<string, string>, inFile: unknown = {}) => {
  const { value } = within(env, inFile)
  return typeof value === 'object' && value !== null && 'vault' in value ? value.vault : assert.fail()
}

describe('a variable of the vault CLI', () => {
  const FILLED: [env: Record<string, string>, inFile: object, vault: object][] = [
    [{ VAULT_ADDR: 'https://a' }, {}, { address: 'https://a' }],
    [{ VAULT_ADDR: 'https://a' }, { address: ['https://b', 'https://c'] }, { address: ['https://b', 'https://c'] }],
    [{ VAULT_ADDR: 'https://a', VAULT_AGENT_ADDR: 'http://127.0.0.1:8100' }, {}, { address: 'http://127.0.0.1:8100' }],
    [{ VAULT_CACERT_BYTES: 'PEM' }, {}, { caPem: 'PEM' }],
    [{ VAULT_CACERT_BYTES: 'PEM', VAULT_CACERT: '/ca' }, {}, { caFile: '/ca' }],
    [{ VAULT_CACERT_BYTES: 'PEM' }, { caFile: '/file' }, { caFile: '/file' }],
    [{ VAULT_CACERT: '/ca' }, { caPem: 'FILE' }, { caPem: 'FILE' }],
    [{ VAULT_CLIENT_TIMEOUT: '90' }, {}, { timeouts: { total: '90s' } }],
    [{ VAULT_CLIENT_TIMEOUT: '2m' }, { timeouts: { connect: '1s' } }, { timeouts: { connect: '1s', total: '2m' } }],
    [{ VAULT_CLIENT_TIMEOUT: '2m' }, { timeouts: { total: '1s' } }, { timeouts: { total: '1s' } }],
    [{ VAULT_TOKEN: 't' }, {}, { auth: { kind: 'token', token: 't' } }],
    [{ VAULT_TOKEN: 't' }, { auth: [{ kind: 'cert' }] }, { auth: [{ kind: 'cert' }] }],
    [{ VAULT_ADDR: '', VAULT_TOKEN: '' }, {}, {}],
  ]
  for (const [env, inFile, vault] of FILLED)
    test(`makes ${JSON.stringify(vault)} of ${JSON.stringify(env)} and ${JSON.stringify(inFile)}`, () => {
      assert.deepEqual(vaultOf(env, inFile), vault)
      assert.deepEqual([within(env, inFile).troubles, within(env, inFile).warnings], [[], []])
    })

  test('is blamed for what is wrong with it, and not for what the file says', () => {
    const problem = (path: string) => ({ place: 'c.yaml:1:1', path, message: 'is wrong' })
    const env = { VAULT_AGENT_ADDR: 'x', VAULT_TOKEN: 'y', VAULT_CLIENT_TIMEOUT: 'z' }
    const { blame } = within(env, { timeouts: { connect: '1s' }, namespace: 'a' })
    const messages = ['address', 'auth.token', 'timeouts.total', 'timeouts.connect', 'namespace', 'addressbook'].map(
      (key) => blame(problem(`vault.${key}`)).message,
    )
    assert.deepEqual(messages, [
      'is wrong (from VAULT_AGENT_ADDR)',
      'is wrong (from VAULT_TOKEN)',
      'is wrong (from VAULT_CLIENT_TIMEOUT)',
      'is wrong',
      'is wrong',
      'is wrong',
    ])
  })

  for (const [name, { isRefused, isFlag, why }] of Object.entries(UNUSED_VARIABLES)) {
    test(`${name} is ${isRefused ? 'refused' : 'told to be ignored'}${isFlag ? ' where it is true' : ''}`, () => {
      for (const text of isFlag ? ['1', 't', 'TRUE'] : ['x']) {
        const { troubles, warnings } = within({ [name]: text })
        const [told, none] = isRefused ? [troubles, warnings] : [warnings, troubles]
        assert.deepEqual(told, [`${name} is ${isRefused ? 'set' : 'ignored'}; ${why}`])
        assert.deepEqual(none, [])
      }
      for (const text of isFlag ? ['', '0', 'false', 'yes'] : ['']) {
        const { troubles, warnings } = within({ [name]: text })
        assert.deepEqual([troubles, warnings], [[], []], text)
      }
    })
  }

  test('VAULT_CAPATH does no harm where the CAs are given otherwise', () => {
    const env = { VAULT_CAPATH: '/etc/ssl/certs' }
    assert.deepEqual(within(env, { caFile: '/ca' }).troubles, [])
    assert.deepEqual(within({ ...env, VAULT_CACERT: '/ca' }).troubles, [])
    assert.equal(within(env).troubles.length, 1)
  })

  test('means nothing to a config that asks no Vault', () => {
    const env = { VAULT_ADDR: 'https://a', VAULT_PROXY_ADDR: 'http://p', VAULT_MAX_RETRIES: '3' }
    const config = { certificates: [{ source: { kind: 'dev-ca' } }] }
    const { value, troubles, warnings } = withVaultEnv(config, env)
    assert.deepEqual([value, troubles, warnings], [config, [], []])
  })

  test('fills in the connection of a fallback, too', () => {
    const certificates = [{ source: { kind: 'file' }, fallback: [{ kind: 'vault-pki' }] }]
    const { value } = withVaultEnv({ certificates }, { VAULT_ADDR: 'https://a' })
    assert.deepEqual(value, { certificates, vault: { address: 'https://a' } })
  })

  test('of its API client is known, each of them', () => {
    // The constants of api/client.go of Vault 1.21 that begin with Env.
    const names =
      'ADDR AGENT_ADDR CACERT CACERT_BYTES CAPATH CLIENT_CERT CLIENT_KEY CLIENT_TIMEOUT HEADERS SRV_LOOKUP SKIP_VERIFY NAMESPACE TLS_SERVER_NAME WRAP_TTL MAX_RETRIES TOKEN MFA RATE_LIMIT HTTP_PROXY PROXY_ADDR DISABLE_REDIRECTS'
    const known = [...VAULT_VARIABLES.map(([name]) => name), ...Object.keys(UNUSED_VARIABLES)]
    assert.deepEqual(
      known.toSorted(),
      names
        .split(' ')
        .map((name) => `VAULT_${name}`)
        .toSorted(),
    )
  })
})
