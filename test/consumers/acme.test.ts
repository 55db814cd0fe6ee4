import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { certificateId } from '../../src/acme/ari.ts'
import { createUpdates } from '../../src/acme/dns-update.ts'
import { SidecarError } from '../../src/errors.ts'
import { bundleCli } from '../../tools/build.ts'
import { createSource } from '../sources/contract.ts'
import { startBind } from '../support/bind.ts'
import { createTestCa } from '../support/ca.ts'
import { commandLine } from '../support/certferry.ts'
import { keepNoOrphan, logOf } from '../support/child.ts'
import { component, skipReason } from '../support/components.ts'
import { type Pebble, startPebble } from '../support/pebble.ts'
import { until } from '../support/until.ts'
import { freePort, startVault } from '../support/vault.ts'

const forever = new AbortController().signal
const ORDERS = 50

const source = (pebble: Pebble, options: object) =>
  createSource({
    kind: 'acme',
    directory: pebble.directory,
    caFile: pebble.caFile,
    account: { keyFile: join(pebble.folder, 'account.pem'), termsOfServiceAgreed: true },
    challenge: { kind: 'http-01', listen: `127.0.0.1:${pebble.httpPort}` },
    timeout: '60s',
    ...options,
  })

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => assert.fail('it did not fail'),
    (error: unknown) => (error instanceof SidecarError ? error : assert.fail(String(error))),
  )

describe('Pebble', { skip: await skipReason('pebble', 'pebble-challtestsrv') }, () => {
  test(`gives ${ORDERS} of ${ORDERS} certificates though it refuses good nonces at random, and looks at each challenge`, async (t) => {
    await using pebble = await startPebble({ env: { PEBBLE_VA_ALWAYS_VALID: '0', PEBBLE_WFE_NONCEREJECT: '5' } })
    const tookMs: number[] = []
    for (let index = 0; index < ORDERS; index += 1) {
      const startedAt = performance.now()
      const { serial } = await source(pebble, { commonName: `n${index}.example.com` }).fetch(forever)
      assert.match(serial, /^[0-9a-f]+$/)
      tookMs.push(performance.now() - startedAt)
    }
    tookMs.sort((a, b) => a - b)
    const seconds = (at: number) => Math.round(tookMs[Math.floor(at * (tookMs.length - 1))] ?? 0) / 1000
    t.diagnostic(
      JSON.stringify({
        server: 'Pebble',
        orders: ORDERS,
        obtained: tookMs.length,
        medianSeconds: seconds(0.5),
        p99Seconds: seconds(0.99),
      }),
    )
    assert.equal(tookMs.length, ORDERS)
  })

  test('binds an account to one at the CA, and refuses it without', async () => {
    const kid = 'kid-1'
    const hmac = 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W'
    const config = { externalAccountBindingRequired: true, externalAccountMACKeys: { [kid]: hmac } }
    await using pebble = await startPebble({ config })
    const hmacKeyFile = join(pebble.folder, 'hmac')
    await writeFile(hmacKeyFile, `${hmac}\n`, { mode: 0o600 })
    const account = { keyFile: join(pebble.folder, 'bound.pem'), termsOfServiceAgreed: true }
    const bound = { ...account, externalAccountBinding: { kid, hmacKeyFile } }
    assert.ok((await source(pebble, { commonName: 'a.example.com', account: bound }).fetch(forever)).serial)
    const unbound = { ...account, keyFile: join(pebble.folder, 'unbound.pem') }
    const error = await failure(source(pebble, { commonName: 'a.example.com', account: unbound }).fetch(forever))
    assert.equal(error.code, 'ACME_ACCOUNT')
  })

  test('is rehearsed with by once --dry-run: the whole challenge, and nothing written', async () => {
    await using pebble = await startPebble()
    // What ships: a bundle, without what acme-client would send by.
    await bundleCli(join(pebble.folder, 'dist'))
    const program = join(pebble.folder, 'dist/cli.cjs')
    const directory = join(pebble.folder, 'tls')
    const file = join(pebble.folder, 'certferry.yaml')
    const certificate = {
      name: 'web',
      source: {
        kind: 'acme',
        // Nobody is there: only the staging directory is asked.
        directory: 'https://127.0.0.1:1/dir',
        stagingDirectory: pebble.directory,
        caFile: pebble.caFile,
        commonName: 'a.example.com',
        account: { keyFile: join(pebble.folder, 'account.pem'), termsOfServiceAgreed: true },
        challenge: { kind: 'http-01', listen: `127.0.0.1:${pebble.httpPort}` },
      },
      outputs: [{ kind: 'pem', directory }],
    }
    const rehearse = async (source: object = {}) => {
      const web = { ...certificate, source: { ...certificate.source, ...source } }
      await writeFile(file, JSON.stringify({ certificates: [web] }), { mode: 0o600 })
      const args = [...commandLine(program, 'once', '-c', file, '--dry-run')]
      return promisify(execFile)(process.execPath, args, { env: { PATH: process.env.PATH ?? '' } })
    }
    const issued = /web {2}https:.*issued certificate [0-9a-f]+ for a\.example\.com, which is thrown away/.source
    const { stdout } = await rehearse()
    assert.match(stdout, new RegExp(`✓ ${issued}; of a root that is not trusted here, as is usual for staging$`, 'm'))
    await assert.rejects(readdir(directory))
    // No staging, but the CA itself: without its root nothing of it could be delivered.
    const refused = rehearse({ directory: pebble.directory })
    await assert.rejects(refused, { code: 69, stdout: new RegExp(`✗ ${issued}, and could not be put into service: `) })
  })

  test('revokes what was replaced, and says nothing when that is done already', async () => {
    await using pebble = await startPebble()
    const made = source(pebble, { commonName: 'a.example.com' })
    const { leaf, serial } = await made.fetch(forever)
    assert.equal(await pebble.statusOf(serial), 'Valid')
    assert.ok(made.revoke)
    await made.revoke(leaf, 'superseded', forever)
    assert.equal(await pebble.statusOf(serial), 'Revoked')
    await made.revoke(leaf, 'superseded', forever)
  })

  test('refuses an order for a name of its block list, with the name and the reason', async () => {
    await using pebble = await startPebble({ config: { domainBlocklist: ['blocked.example.com'] } })
    const error = await failure(source(pebble, { commonName: 'blocked.example.com' }).fetch(forever))
    assert.match(error.code, /^ACME_(?:ORDER_INVALID|ACCOUNT|CHALLENGE_FAILED)$/)
    assert.match(error.message, /blocked\.example\.com/)
  })
})

describe('renewal information', { skip: await skipReason('pebble-ari', 'pebble-challtestsrv') }, () => {
  test('is asked for, moves the renewal into its window, and the order tells what it replaces', async () => {
    await using pebble = await startPebble({ program: 'pebble-ari' })
    const made = source(pebble, { commonName: 'a.example.com' })
    const first = await made.fetch(forever)
    const { polling } = made
    assert.ok(polling?.renewAt)
    assert.equal(polling.renewAt(first), undefined)
    assert.equal(polling.afterMs(first), 0)
    assert.equal(await polling.look(first, forever), first)
    const at = polling.renewAt(first)
    assert.ok(at !== undefined && at > Date.now() && at < first.notAfter, `${at} lies within its life`)
    assert.ok(polling.afterMs(first) >= 59_000)
    await polling.look(first, forever)
    assert.equal(polling.renewAt(first), at, 'picked once')
    assert.match(await certificateId(first.leaf), /^[\w-]+\.[\w-]+$/)
    await made.fetch(forever, first)
    // A second order that replaces the same one is refused by the server, and placed again without.
    const third = await made.fetch(forever, first)
    assert.ok(third.serial)
    assert.match(pebble.log(), /replace/i)
  })

  test('profiles are asked for, and an unknown one is refused with its name', async () => {
    const profiles = { short: { description: 'short-lived', validityPeriod: 600 } }
    await using pebble = await startPebble({ program: 'pebble-ari', config: { profiles } })
    const { notAfter } = await source(pebble, { commonName: 'a.example.com', profile: 'short' }).fetch(forever)
    assert.ok(notAfter - Date.now() <= 600_000)
    const error = await failure(source(pebble, { commonName: 'a.example.com', profile: 'none' }).fetch(forever))
    assert.equal(error.code, 'ACME_ORDER_INVALID')
    assert.match(error.message, /none/)
  })
})

describe('dynamic updates of a real BIND', { skip: await skipReason('named') }, () => {
  test('put the record there and take only that one away', async () => {
    await using bind = await startBind()
    const { server, zone, keyName, keyFile } = bind
    const secret = Buffer.from((await import('node:fs')).readFileSync(keyFile, 'utf8').trim(), 'base64')
    const updates = (key = secret) =>
      createUpdates({ server, zone, keyName, keyFile, algorithm: 'hmac-sha256', ttl: 60_000 }, key, { now: Date.now })
    const name = `_acme-challenge.www.${zone}`
    await updates().add(name, 'one', 'www', forever)
    await updates().add(name, 'two', 'www', forever)
    assert.deepEqual((await bind.txt(name)).toSorted(), ['one', 'two'])
    await updates().remove(name, 'one', 'www', forever)
    assert.deepEqual(await bind.txt(name), ['two'])
    const error = await failure(updates(Buffer.from('wrong')).add(name, 'three', 'www', forever))
    assert.equal(error.code, 'ACME_CHALLENGE_SETUP')
    assert.match(error.message, /NOTAUTH/)
  })
})

describe('step-ca', { skip: await skipReason('step-ca', 'step') }, () => {
  test('gives a certificate by its ACME provisioner', async () => {
    const [stepCa, step] = [await component('step-ca'), await component('step')]
    const folder = await mkdtemp(join(tmpdir(), 'certferry-step-'))
    const port = await freePort()
    const env = { PATH: process.env.PATH ?? '', STEPPATH: folder, HOME: folder }
    const run = promisify(execFile)
    await writeFile(join(folder, 'password'), 'password', { mode: 0o600 })
    await run(
      step,
      [
        'ca',
        'init',
        '--name',
        'Test',
        '--dns',
        'localhost',
        '--dns',
        '127.0.0.1',
        '--address',
        `127.0.0.1:${port}`,
        '--provisioner',
        'admin',
        '--password-file',
        join(folder, 'password'),
      ],
      { env },
    )
    const configFile = join(folder, 'config/ca.json')
    const config = JSON.parse(await readFile(configFile, 'utf8'))
    config.authority.provisioners.push({ type: 'ACME', name: 'acme' })
    await writeFile(configFile, JSON.stringify(config))
    const child = spawn(stepCa, [join(folder, 'config/ca.json'), '--password-file', join(folder, 'password')], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const log = logOf(child)
    const kill = keepNoOrphan(child)
    try {
      await until('step-ca answers', () => {
        if (child.exitCode !== null) throw new Error(log())
        return /Serving HTTPS/.test(log())
      })
      // It looks at port 443 or 80 only: an account, and an order whose challenge nobody answers, show the way there.
      const made = createSource({
        kind: 'acme',
        directory: `https://127.0.0.1:${port}/acme/acme/directory`,
        caFile: join(folder, 'certs/root_ca.crt'),
        commonName: 'localhost',
        account: { keyFile: join(folder, 'account.pem') },
        challenge: { kind: 'http-01', listen: '127.0.0.1:80' },
        timeout: '30s',
      })
      const { leaf, intermediates } = await made.fetch(forever)
      assert.match(leaf.subjectAltName ?? '', /DNS:localhost/)
      assert.equal(intermediates.length, 1)
    } finally {
      await kill()
      await rm(folder, { recursive: true, force: true })
    }
  })
})

describe("Vault's own ACME directory", { skip: await skipReason('vault') }, () => {
  test('gives a certificate by http-01', async () => {
    const ca = await createTestCa({ commonName: 'Vault server' })
    const { certificatePem, keyPem } = await ca.issue({ commonName: 'localhost', altNames: ['localhost', '127.0.0.1'] })
    await using vault = await startVault({ tls: { caPem: ca.rootPem, certPem: certificatePem, keyPem } })
    const folder = await mkdtemp(join(tmpdir(), 'certferry-vault-acme-'))
    try {
      await vault.setupPki({ roles: { web: { allow_any_name: true, enforce_hostnames: false, max_ttl: '1h' } } })
      const headers = ['Last-Modified', 'Location', 'Replay-Nonce', 'Link']
      await vault.api('POST', 'sys/mounts/pki/tune', {
        passthrough_request_headers: ['If-Modified-Since'],
        allowed_response_headers: headers,
      })
      await vault.api('POST', 'pki/config/cluster', { path: `${vault.address}/v1/pki` })
      await vault.api('POST', 'pki/config/acme', { enabled: true })
      const made = createSource({
        kind: 'acme',
        directory: `${vault.address}/v1/pki/acme/directory`,
        caFile: vault.caFile,
        commonName: 'localhost',
        account: { keyFile: join(folder, 'account.pem') },
        challenge: { kind: 'http-01', listen: '127.0.0.1:80' },
        timeout: '60s',
      })
      const { leaf } = await made.fetch(forever)
      assert.match(leaf.subjectAltName ?? '', /DNS:localhost/)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
