import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createTestCa, type Issued, type TestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { startVault, type TestVault } from '../support/vault.ts'
import { failure, forever, openVault } from '../vault/support.ts'

const skip = await skipReason('vault')

describe('logging in to a real Vault with a client certificate', { skip }, () => {
  let ca: TestCa
  let server: TestVault
  let directory: string
  before(async () => {
    ca = await createTestCa()
    directory = await mkdtemp(join(tmpdir(), 'certferry-auth-cert-'))
    const { certificatePem, keyPem } = await ca.issue({ altNames: ['127.0.0.1'] })
    server = await startVault({ tls: { caPem: ca.rootPem, certPem: certificatePem, keyPem } })
    await server.api('POST', 'sys/auth/cert', { type: 'cert' })
    for (const name of ['one', 'two'])
      await server.api('POST', `auth/cert/certs/${name}`, {
        certificate: ca.rootPem,
        allowed_common_names: `${name}.example.com`,
        token_policies: [name],
        token_ttl: '1h',
      })
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })

  const save = async (name: string, content: string) => {
    await writeFile(join(directory, name), content)
    return join(directory, name)
  }
  const clientFiles = async ({ certificatePem, keyPem }: Pick<Issued, 'certificatePem' | 'keyPem'>) => ({
    clientCertFile: await save('client.crt', certificatePem),
    clientKeyFile: await save('client.key', keyPem),
  })
  const certificateOf = (name: string) => ca.issue({ commonName: `${name}.example.com` })
  const open = (files: object, auth: object = {}) =>
    openVault(server.address, { caFile: server.caFile, ...files, auth: { kind: 'cert', ...auth } }).vault
  const policiesOf = async (vault: ReturnType<typeof open>) => (await vault.lookupSelf(forever))?.policies
  const logins = async () => (await server.audited()).filter(({ path }) => path === 'auth/cert/login').length
  const revokeTokens = () => server.api('POST', 'sys/leases/revoke-prefix/auth/cert/login')

  test('takes the role that fits the certificate, or the one that is named', async () => {
    for (const auth of [{}, { name: 'one' }, { mount: '/cert/' }]) {
      await using vault = open(await clientFiles(await certificateOf('one')), auth)
      assert.deepEqual(await policiesOf(vault), ['default', 'one'])
    }
  })

  test('hashicorp/vault#16266 a certificate that was replaced is the one of the next login, though connections are kept', async () => {
    await using vault = open(await clientFiles(await certificateOf('one')))
    assert.deepEqual(await policiesOf(vault), ['default', 'one'])
    await clientFiles(await certificateOf('two'))
    await revokeTokens()
    // On a connection that was opened with the old certificate Vault would still see that one.
    assert.deepEqual(await policiesOf(vault), ['default', 'two'])
  })

  test('a refused certificate is told with what it says of itself, not tried again at once, and its successor is', async () => {
    const files = await clientFiles(await certificateOf('three'))
    await using vault = open(files)
    const before = await logins()
    const { code, message } = await failure(vault.lookupSelf(forever))
    assert.equal(code, 'AUTH_FAILED')
    const end = `${files.clientCertFile} holds a certificate of CN=three.example.com, issued by CN=Test Root, valid until `
    assert.ok(message.startsWith('Vault refused POST auth/cert/login (400): '), message)
    assert.ok(message.includes(`; ${end}`), message)
    assert.match((await failure(vault.lookupSelf(forever))).message, /tried again in/)
    assert.equal((await logins()) - before, 1)
    await clientFiles(await certificateOf('two'))
    assert.deepEqual(await policiesOf(vault), ['default', 'two'])
  })

  test('a certificate of another CA, or another role than it fits, is a failed login', async () => {
    const foreign = await createTestCa({ commonName: 'Foreign Root' })
    const rows = [
      [await foreign.issue({ commonName: 'one.example.com' }), {}],
      [await certificateOf('one'), { name: 'two' }],
      [await certificateOf('one'), { name: 'nosuch' }],
      [await certificateOf('one'), { mount: 'nosuch' }],
    ] as const
    for (const [issued, auth] of rows) {
      await using vault = open(await clientFiles(issued), auth)
      assert.equal((await failure(vault.lookupSelf(forever))).code, 'AUTH_FAILED', JSON.stringify(auth))
    }
  })

  test('half a replacement is no login: Vault is asked nothing until certificate and key belong together', async () => {
    const [first, second] = [await certificateOf('one'), await certificateOf('two')]
    await using vault = open(await clientFiles({ ...second, keyPem: first.keyPem }))
    const before = await logins()
    const error = await failure(vault.lookupSelf(forever))
    assert.equal(error.code, 'AUTH_SOURCE')
    assert.match(error.message, /client\.crt and \S+client\.key are not a certificate and its key$/)
    assert.equal(await logins(), before)
    await clientFiles(second)
    assert.deepEqual(await policiesOf(vault), ['default', 'two'])
  })

  test('says which file is missing, empty, or no certificate', async () => {
    const files = await clientFiles(await certificateOf('one'))
    const missing = join(directory, 'missing')
    const rows = [
      [{ ...files, clientCertFile: missing }, `cannot read ${missing} (ENOENT)`],
      [{ ...files, clientKeyFile: missing }, `cannot read ${missing} (ENOENT)`],
      [{ ...files, clientCertFile: await save('empty', '\n') }, `${join(directory, 'empty')} is empty`],
      [{ ...files, clientKeyFile: files.clientCertFile }, / are not a certificate and its key$/],
    ] as const
    for (const [given, told] of rows) {
      await using vault = open(given)
      const { code, message } = await failure(vault.lookupSelf(forever))
      assert.equal(code, 'AUTH_SOURCE')
      if (typeof told === 'string') assert.equal(message, told)
      else assert.match(message, told)
    }
  })
})
