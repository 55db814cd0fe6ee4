import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { toSidecarError } from '../../src/errors.ts'
import { createSource } from '../sources/contract.ts'
import { createTestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { place, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'
import { forever, openVault } from '../vault/support.ts'

const skip = await skipReason('vault', 'openssl')

const server = skip ? undefined : await startVault()
after(() => server?.[Symbol.asyncDispose]())

describe('certificates that somebody else keeps in Vault', { skip }, async () => {
  const api: TestVault['api'] = (...request) => (server ?? assert.fail()).api(...request)
  await server?.api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '2' } })
  const put = (path: string, data: object) => api('POST', `kv/data/${path}`, { data })
  const ca = await createTestCa()
  const opened = server && openVault(server.address, { auth: { kind: 'token', token: server.rootToken } })
  after(() => opened?.vault[Symbol.asyncDispose]())
  const source = (options: object) =>
    createSource({ kind: 'vault-kv', mount: 'kv', ...options }, { vault: () => opened?.vault ?? assert.fail() })
  const fetched = (options: object) => source(options).fetch(forever)

  const forms: Record<string, (pem: Issued) => { data: object; fields?: object }> = {
    'as Kubernetes calls them': ({ cert, key }) => ({
      data: { 'tls.crt': cert, 'tls.key': key, 'ca.crt': ca.rootPem },
    }),
    'as Vault answers': ({ cert, key }) => ({ data: { certificate: cert, private_key: key, ca_chain: [ca.rootPem] } }),
    'in base64': ({ cert, key }) => ({ data: { cert: base64(cert), key: base64(key) } }),
    'in one text': ({ cert, key }) => ({ data: { pem: `${key}${cert}${ca.rootPem}` } }),
    'by names of the config': ({ cert, key }) => ({
      data: { a: cert, b: key },
      fields: { certificate: 'a', key: 'b' },
    }),
    'as PKCS#12 in base64': ({ cert, key }) => ({ data: { pfx: pkcs12(cert, key), password: 'geheim' } }),
  }
  for (const [form, make] of Object.entries(forms))
    test(`are read ${form}`, async () => {
      const issued = await issue()
      const { data, fields = {} } = make(issued)
      const path = form.replaceAll(/\W/g, '-')
      await put(path, data)
      const bundle = await fetched({ path, fields })
      assert.equal(bundle.leaf.subject, 'CN=kv.example.com')
      assert.ok(bundle.leaf.checkPrivateKey(bundle.key))
    })

  test('of a wanted version; without one, the latest', async () => {
    const [one, two] = [await issue(), await issue()]
    await put('versions', { cert: one.cert, key: one.key })
    await put('versions', { cert: two.cert, key: two.key })
    assert.equal((await fetched({ path: 'versions', version: 1 })).serial, one.serial)
    assert.equal((await fetched({ path: 'versions' })).serial, two.serial)
  })

  const [some, another] = [await issue(), await issue()]
  const wrong: Record<string, { data: object; fields?: object; code: string; told: RegExp }> = {
    'no certificate': {
      data: { a: 1 },
      code: 'FIELD_MISSING',
      told: /none of the usual fields .* it has a; say fields\.certificate/,
    },
    'no key': { data: { cert: some.cert }, code: 'FIELD_MISSING', told: /say fields\.key$/ },
    'a field that is named but absent': {
      data: { cert: 'x' },
      fields: { certificate: 'crt' },
      code: 'FIELD_MISSING',
      told: /version 1 has no field "crt" for the certificate; it has cert/,
    },
    'a key of another certificate': {
      data: { cert: some.cert, key: another.key },
      code: 'KEY_MISMATCH',
      told: /does not belong to its private key/,
    },
    'a PKCS#12 file with another password': {
      data: { pfx: pkcs12(some.cert, some.key, 'a'), password: 'b' },
      code: 'PKCS12_INVALID',
      told: /does not open with this password/,
    },
  }
  for (const [claim, { data, fields = {}, code, told }] of Object.entries(wrong))
    test(`${claim} is told with place and fix`, async () => {
      const path = `wrong/${claim.replaceAll(/\W/g, '-')}`
      await put(path, data)
      await assert.rejects(fetched({ path, fields }), (error) => {
        assert.equal(toSidecarError(error).code, code)
        assert.match(toSidecarError(error).message, told)
        return true
      })
    })

  test('a new version is a rotation like any other; one that is no pair changes nothing', async () => {
    const [one, two] = [await issue(), await issue()]
    await put('web', { cert: one.cert, key: one.key, ca: ca.rootPem })
    const { folder } = place()
    const file = join(folder, 'kv.yaml')
    const { address, rootToken: token } = server ?? assert.fail()
    const config = {
      vault: { address, auth: { kind: 'token', token } },
      certificates: [
        {
          name: 'web',
          source: { kind: 'vault-kv', mount: 'kv', path: 'web', poll: '1s' },
          outputs: [{ kind: 'pem', directory: join(folder, 'web') }],
        },
      ],
    }
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
    await using running = run(loadConfig(file, {}))
    const serving = () => running.loop('web').report?.state.serving?.serial
    await until('the first is served', () => serving() === one.serial)
    await put('web', { cert: two.cert, key: one.key, ca: ca.rootPem })
    await until('the mixed pair is refused', () => running.loop('web').report?.state.failure?.code === 'KEY_MISMATCH')
    assert.equal(serving(), one.serial)
    await put('web', { cert: two.cert, key: two.key, ca: ca.rootPem })
    await until('the second is served', () => serving() === two.serial)
    assert.match(readFileSync(join(folder, 'web', 'tls.crt'), 'utf8'), /BEGIN CERTIFICATE/)
    const written = running.events.filter(({ name }) => name === 'certificate.written')
    assert.equal(written.length, 2)
  })

  interface Issued {
    readonly cert: string
    readonly key: string
    readonly serial: string
  }

  async function issue(): Promise<Issued> {
    const { certificatePem: cert, keyPem: key, bundle } = await ca.issue({ commonName: 'kv.example.com' })
    return { cert, key, serial: bundle.serial }
  }
})

const base64 = (text: string) => Buffer.from(text).toString('base64')

function pkcs12(cert: string, key: string, password = 'geheim'): string {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-p12-'))
  try {
    writeFileSync(join(folder, 'c.pem'), cert)
    writeFileSync(join(folder, 'k.pem'), key)
    const args = ['pkcs12', '-export', '-in', 'c.pem', '-inkey', 'k.pem', '-passout', `pass:${password}`]
    return execFileSync('openssl', args, { cwd: folder }).toString('base64')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
