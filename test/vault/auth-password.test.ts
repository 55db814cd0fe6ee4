import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { answer, type SeenRequest, startFaultProxy } from '../support/fault-proxy.ts'
import { failure, forever, openVault } from './support.ts'

let directory: string
const path = (name: string) => join(directory, name)
const save = async (name: string, content: string | Buffer) => {
  await writeFile(path(name), content)
  return path(name)
}
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'certferry-auth-password-'))
})
after(() => rm(directory, { recursive: true }))

/** A Vault with one login path, which takes this password. */
const passwordVault =
  (url: string, password = 'correct horse') =>
  (seen: SeenRequest) => {
    if (seen.url === '/v1/auth/token/lookup-self')
      return answer(200, { data: { ttl: 3600, renewable: true, policies: [], display_name: '' } })
    if (seen.url !== url) return answer(404, { errors: ['no handler for route'] })
    if (seen.body !== JSON.stringify({ password }))
      return answer(400, { errors: [`invalid username or password: ${seen.body}`] })
    return answer(200, { auth: { client_token: 'hvs.password', lease_duration: 3600, renewable: true } })
  }

for (const kind of ['userpass', 'ldap']) {
  describe(`auth ${kind}`, () => {
    test('sends the password in the body and the user in the path, to the mount', async () => {
      for (const mount of [kind, 'staff/east']) {
        await using server = await startFaultProxy(passwordVault(`/v1/auth/${mount}/login/app`))
        const auth = { kind, username: 'app', password: 'correct horse', ...(mount === kind ? {} : { mount }) }
        const { vault } = openVault(server.address, { auth })
        await using _ = vault
        await vault.lookupSelf(forever)
        assert.equal(server.requests[0]?.body, '{"password":"correct horse"}')
        assert.equal(server.requests[0]?.headers['x-vault-token'], undefined)
        assert.equal(server.requests[1]?.headers['x-vault-token'], 'hvs.password')
      }
    })

    test('encodes what a name of a user may hold', async () => {
      await using server = await startFaultProxy(passwordVault(`/v1/auth/${kind}/login/CORP%5Capp%3F%40example.com`))
      const auth = { kind, username: 'CORP\\app?@example.com', password: 'correct horse' }
      const { vault } = openVault(server.address, { auth })
      await using _ = vault
      await vault.lookupSelf(forever)
    })

    test('takes a password of a file as it is, but for the line break at its end', async () => {
      for (const [content, password] of [
        ['correct horse\n', 'correct horse'],
        [' grüße 🐎 \r\n', ' grüße 🐎 '],
        ['no line break', 'no line break'],
      ] as const) {
        await using server = await startFaultProxy(passwordVault(`/v1/auth/${kind}/login/app`, password))
        const { vault } = openVault(server.address, {
          auth: { kind, username: 'app', passwordFile: await save('password', content) },
        })
        await using _ = vault
        await vault.lookupSelf(forever)
      }
    })

    test('V15 a password that was replaced is used at once, though the old one was just refused, and no message holds it', async () => {
      await using server = await startFaultProxy(passwordVault(`/v1/auth/${kind}/login/app`))
      const passwordFile = await save('replaced', 'wrong-password\n')
      const { vault } = openVault(server.address, { auth: { kind, username: 'app', passwordFile } })
      await using _ = vault
      const { code, message } = await failure(vault.lookupSelf(forever))
      assert.equal(code, 'AUTH_FAILED')
      assert.equal(
        message,
        `Vault refused POST auth/${kind}/login/app (400): invalid username or password: {"password":"[secret]"}`,
      )
      assert.match((await failure(vault.lookupSelf(forever))).message, /the same credential is tried again in/)
      assert.equal(server.requests.length, 1)
      await save('replaced', 'correct horse\n')
      await vault.lookupSelf(forever)
    })

    test('V15 says what is wrong with the file, asks nothing, and goes on once it is mended', async () => {
      await using server = await startFaultProxy(passwordVault(`/v1/auth/${kind}/login/app`))
      const passwordFile = path(`late-${kind}`)
      const { vault } = openVault(server.address, { auth: { kind, username: 'app', passwordFile } })
      await using _ = vault
      const rows = [
        [undefined, `cannot read ${passwordFile} (ENOENT)`],
        ['\n', `${passwordFile} is empty`],
        ['one\ntwo\n', `${passwordFile} holds more than one line, or what is not text`],
        [Buffer.from([0xe9, 0x0a]), `${passwordFile} holds more than one line, or what is not text`],
        ['nul\0', `${passwordFile} holds more than one line, or what is not text`],
        ['x'.repeat(70_000), `${passwordFile} is too long for a credential`],
      ] as const
      for (const [content, told] of rows) {
        if (content !== undefined) await save(`late-${kind}`, content)
        const { code, message } = await failure(vault.lookupSelf(forever))
        assert.deepEqual([code, message], ['AUTH_SOURCE', told])
      }
      assert.equal(server.requests.length, 0)
      await save(`late-${kind}`, 'correct horse')
      await vault.lookupSelf(forever)
    })
  })
}

test('a login that wants a second factor is refused, with what to do', async () => {
  const auth = { client_token: '', lease_duration: 0, renewable: false, mfa_requirement: { mfa_request_id: 'x' } }
  await using server = await startFaultProxy(() => answer(200, { auth }))
  const { vault } = openVault(server.address, { auth: { kind: 'userpass', username: 'app', password: 'x' } })
  await using _ = vault
  const { code, message } = await failure(vault.lookupSelf(forever))
  assert.equal(code, 'AUTH_FAILED')
  assert.match(message, /second factor \(MFA\).*leave it out of the login enforcement/)
})

test('a login without a token, for no reason that is given, is no answer of Vault', async () => {
  const auth = { client_token: '', lease_duration: 0, renewable: false, mfa_requirement: null }
  await using server = await startFaultProxy(() => answer(200, { auth }))
  const { vault } = openVault(server.address, { auth: { kind: 'userpass', username: 'app', password: 'x' } })
  await using _ = vault
  const { code, message } = await failure(vault.lookupSelf(forever))
  assert.equal(code, 'BAD_RESPONSE')
  assert.match(message, /"auth\.client_token": is empty/)
})
