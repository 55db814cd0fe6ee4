import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import * as z from 'zod'
import { skipReason } from '../support/components.ts'
import { type LdapServer, startLdap } from '../support/ldap.ts'
import { startVault, type TestVault } from '../support/vault.ts'
import { failure, forever, openVault } from '../vault/support.ts'

const PASSWORD = 'correct horse, grüße'

let directory: string
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'certferry-auth-password-'))
})
after(() => rm(directory, { recursive: true }))
const save = async (name: string, content: string) => {
  await writeFile(join(directory, name), content)
  return join(directory, name)
}

/** What holds of each method that knows a user by a password. */
function contract(kind: 'userpass' | 'ldap', server: () => TestVault) {
  const open = (auth: object) => openVault(server().address, { auth: { kind, username: 'app', ...auth } }).vault
  const logins = async () =>
    (await server().audited()).filter(({ path }) => path.startsWith(`auth/${kind}/login/`)).length

  test('logs in with the password of the file or the config, and has the policies of the user', async () => {
    const passwordFile = await save('good', `${PASSWORD}\n`)
    for (const auth of [{ passwordFile }, { password: PASSWORD }]) {
      await using vault = open(auth)
      assert.deepEqual((await vault.lookupSelf(forever))?.policies, ['default', 'web'])
    }
  })

  test('a password that was replaced is the one of the next login', async () => {
    const passwordFile = await save('replaced', 'wrong-password\n')
    await using vault = open({ passwordFile })
    const before = await logins()
    const { code, message } = await failure(vault.lookupSelf(forever))
    assert.equal(code, 'AUTH_FAILED')
    assert.match(message, new RegExp(`^Vault refused POST auth/${kind}/login/app \\(400\\): `))
    assert.doesNotMatch(message, /wrong-password/)
    assert.match((await failure(vault.lookupSelf(forever))).message, /tried again in/)
    assert.equal((await logins()) - before, 1)
    await save('replaced', `${PASSWORD}\n`)
    assert.deepEqual((await vault.lookupSelf(forever))?.policies, ['default', 'web'])
  })

  test('a user or mount that is not there is a failed login', async () => {
    for (const auth of [{ username: 'nobody' }, { mount: 'nosuch' }]) {
      await using vault = open({ password: PASSWORD, ...auth })
      assert.equal((await failure(vault.lookupSelf(forever))).code, 'AUTH_FAILED')
    }
  })

  test('a second factor that Vault wants is told, not taken for a broken answer', async () => {
    const { api } = server()
    const { accessor } = Mounts.parse((await api('GET', 'sys/auth')).data)[`${kind}/`] ?? {}
    const settings = { method_name: kind, issuer: 'Vault', period: 30, key_size: 20, algorithm: 'SHA256', digits: 6 }
    const { method_id: id } = Method.parse((await api('POST', 'identity/mfa/method/totp', settings)).data)
    const enforcement = `identity/mfa/login-enforcement/${kind}`
    await api('POST', enforcement, { mfa_method_ids: [id], auth_method_accessors: [accessor] })
    try {
      await using vault = open({ password: PASSWORD })
      const { code, message } = await failure(vault.lookupSelf(forever))
      assert.equal(code, 'AUTH_FAILED')
      assert.match(message, /second factor \(MFA\)/)
    } finally {
      await api('DELETE', enforcement)
    }
  })
}

const Mounts = z.record(z.string(), z.object({ accessor: z.string() }))
const Method = z.object({ method_id: z.string() })

describe('logging in to a real Vault with userpass', { skip: await skipReason('vault') }, () => {
  let server: TestVault
  before(async () => {
    server = await startVault()
    await server.api('POST', 'sys/auth/userpass', { type: 'userpass' })
    await server.api('POST', 'auth/userpass/users/app', { password: PASSWORD, token_policies: ['web'] })
  })
  after(() => server?.[Symbol.asyncDispose]())
  contract('userpass', () => server)
})

describe('logging in to a real Vault with ldap', {
  skip: await skipReason('vault', 'vault-plugin-auth-ldap', 'slapd'),
}, () => {
  let server: TestVault
  let people: LdapServer
  before(async () => {
    people = await startLdap({ app: PASSWORD })
    server = await startVault({ authPlugins: ['ldap'] })
    await server.api('POST', 'sys/auth/ldap', { type: 'ldap' })
    await server.api('POST', 'auth/ldap/config', people.config)
    await server.api('POST', 'auth/ldap/users/app', { policies: ['web'] })
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    await people?.[Symbol.asyncDispose]()
  })
  contract('ldap', () => server)
})
