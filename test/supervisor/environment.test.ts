import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { childEnvironment } from '../../src/supervisor/environment.ts'

describe('the environment of the command', () => {
  const credentials = [
    'VAULT_TOKEN',
    'VAULT_WRAP_TOKEN',
    'VAULT_TOKEN_FILE',
    'VAULT_ROLE_ID',
    'VAULT_SECRET_ID',
    'VAULT_SECRET_ID_FILE',
    'VAULT_APPROLE_SECRET_ID',
    'VAULT_PASSWORD',
    'VAULT_JWT',
    'VAULT_CLIENT_KEY',
    'BAO_TOKEN',
    'CERTFERRY_CONFIG',
    'certferry_x',
    '_',
  ]
  for (const name of credentials)
    test(`has no ${name} of certferry`, () => {
      assert.deepEqual(childEnvironment({ [name]: 'x', HOME: '/home/me' }, {}), { HOME: '/home/me' })
    })

  const kept = { VAULT_ADDR: 'a', VAULT_CACERT: 'b', VAULT_NAMESPACE: 'c', MY_VAULT_TOKEN: 'd', TOKEN: 'e', EMPTY: '' }
  test('has all else, such as the address of Vault', () => {
    assert.deepEqual(childEnvironment({ ...kept, GONE: undefined }, {}), kept)
  })

  test('has nothing that the caller withholds', () => {
    assert.deepEqual(childEnvironment({ DB_ROOT_PASSWORD: 'x', A: '1' }, {}, ['DB_ROOT_PASSWORD']), { A: '1' })
  })

  test('has what is added, whatever its name', () => {
    const own = { VAULT_TOKEN: 'of certferry', A: '1' }
    assert.deepEqual(childEnvironment(own, { VAULT_TOKEN: 'of the command', A: '2' }, ['A']), {
      VAULT_TOKEN: 'of the command',
      A: '2',
    })
  })
})
