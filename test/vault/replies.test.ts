import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import type { ErrorCode, SidecarError } from '../../src/errors.ts'
import { answer, type Fault, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { answering, failure, forever, openVault, quickClock, request } from './support.ts'

const errors = (...texts: string[]) => ({ errors: texts })
const issued = { data: { certificate: 'PEM', issuing_ca: 'PEM', ca_chain: ['PEM'] }, warnings: null }

const PAGE = '<html><script>canary-page</script></html>'
const HTML = { 'content-type': 'text/html' }

/** Each row: what Vault, or something before it, answers; what that is called; what the message must hold. */
const ROWS: [sentence: string, fault: Fault, code: ErrorCode, message?: RegExp][] = [
  [
    'V1 a sealed Vault',
    answer(503, errors('Vault is sealed')),
    'VAULT_SEALED',
    /^Vault failed at POST pki\/sign\/web \(503\): Vault is sealed$/,
  ],
  ['V1 a 503 of a load balancer is not a sealed Vault', answer(503, PAGE, HTML), 'VAULT_5XX'],
  ['V3 a disaster-recovery secondary', answer(472, errors('DR secondary')), 'VAULT_UNUSABLE'],
  ['V3 a performance standby that does not forward', answer(473), 'VAULT_UNUSABLE'],
  ['V3 a Vault that is not initialised', answer(501, errors('not initialized')), 'VAULT_UNUSABLE'],
  ['V4 a rate-limit quota', answer(429, errors('rate limit quota exceeded')), 'RATE_LIMITED'],
  [
    'V6 an internal error',
    answer(500, errors('1 error occurred:\n\t* storage failed\n\n')),
    'VAULT_5XX',
    /\(500\): storage failed$/,
  ],
  ['V6 a bad gateway', answer(502, PAGE, HTML), 'VAULT_5XX'],
  ['V6 a gateway timeout', answer(504), 'VAULT_5XX'],
  ['V8 a connection reset before the answer', { kind: 'reset' }, 'VAULT_UNREACHABLE'],
  [
    'V8 a connection reset within the answer',
    { kind: 'part', body: '{"data":', length: 100, end: 'reset' },
    'BAD_RESPONSE',
  ],
  [
    'V8 JSON cut short',
    answer(200, '{"data":{"certificate":"PEM"', { 'content-type': 'application/json' }),
    'BAD_RESPONSE',
  ],
  ['V17 a role that is gone', answer(400, errors('unknown role: web')), 'ROLE_MISSING', /unknown role: web$/],
  [
    'V17 a mount that is gone',
    answer(404, errors('no handler for route "pki/sign/web". route entry not found.')),
    'MOUNT_MISSING',
  ],
  [
    'V17 another engine at that path',
    answer(404, { data: null, warnings: ['Invalid path for a versioned K/V secrets engine.'] }),
    'MOUNT_MISSING',
  ],
  [
    'V17 a verb that the path does not know',
    answer(405, errors('1 error occurred:\n\t* unsupported operation\n\n')),
    'MOUNT_MISSING',
  ],
  [
    'V17 an issuer that is gone',
    answer(
      500,
      errors(
        '1 error occurred:\n\t* could not fetch the CA certificate (was one set?): unable to find PKI issuer for reference: x\n\n',
      ),
    ),
    'ISSUER_MISSING',
  ],
  ['V17 a mount without an issuer', answer(500, errors('no default issuer currently configured')), 'ISSUER_MISSING'],
  [
    'V18 a name that the role does not allow',
    answer(400, errors('common name evil.com not allowed by this role')),
    'REQUEST_REJECTED',
    /common name evil\.com not allowed/,
  ],
  [
    'V27 a CA that ends before the certificate would',
    answer(
      400,
      errors(
        'cannot satisfy request, as TTL would result in notAfter of 2030-01-01T00:00:00Z that is beyond the expiration of the CA certificate at 2029-01-01T00:00:00Z',
      ),
    ),
    'CA_EXPIRING',
  ],
  ['V28 no content', answer(204), 'BAD_RESPONSE'],
  ['V28 data that is null', answer(200, { data: null }), 'BAD_RESPONSE', /at "data"/],
  ['V28 a field that is missing', answer(200, { data: {} }), 'BAD_RESPONSE', /at "data\.certificate"/],
  [
    'V28 a list where a string should be',
    answer(200, { data: { ...issued.data, certificate: ['PEM'] } }),
    'BAD_RESPONSE',
  ],
  ['V28 a list instead of an answer', answer(200, [issued]), 'BAD_RESPONSE'],
  ['V29 a body without end', { kind: 'flood' }, 'BAD_RESPONSE'],
  [
    'V29 a body without end that claims to be short',
    { kind: 'flood', headers: { 'content-type': 'text/html' } },
    'BAD_RESPONSE',
  ],
  [
    'V30 the page of a proxy',
    answer(200, PAGE, HTML),
    'BAD_RESPONSE',
    /^POST pki\/sign\/web \(200\): the answer is not Vault's \(text\/html\)$/,
  ],
  ['V30 the page of a proxy that denies access', answer(403, PAGE, HTML), 'BAD_RESPONSE'],
  [
    'V30 a body compressed though nobody asked for that',
    answer(200, gzipSync(Buffer.alloc(50_000_000, 'x')), {
      'content-type': 'application/json',
      'content-encoding': 'gzip',
    }),
    'BAD_RESPONSE',
  ],
  ['a status nobody documents', answer(418, errors('teapot')), 'BAD_RESPONSE'],
]

/** What a request for a certificate meets where the server does this to it. */
async function meeting(fault: Fault): Promise<{ error: SidecarError; server: FaultProxy; asked: number }> {
  await using server = await startFaultProxy(answering(fault))
  const { vault } = openVault(server.address)
  await using _ = vault
  const error = await failure(vault.sign(request, forever))
  return { error, server, asked: server.requests.filter(({ url }) => url === '/v1/pki/sign/web').length }
}

describe('an answer to a request for a certificate', { concurrency: true }, () => {
  for (const [sentence, fault, code, message] of ROWS)
    test(`${sentence}: ${code}`, async () => {
      const { error, asked } = await meeting(fault)
      assert.equal(error.code, code, error.message)
      if (message) assert.match(error.message, message)
      assert.doesNotMatch(`${error.message} ${error.stack}`, /canary/)
      assert.equal(asked, 1)
    })

  test('V29 is read up to 1 MiB and no further', async () => {
    const { error, server } = await meeting({ kind: 'flood' })
    assert.match(error.message, /UND_ERR_RES_EXCEEDED_MAX_SIZE/)
    // What the kernel buffers on both sides comes on top.
    assert.ok(server.bytesSent() < 16 * 1024 * 1024, `${server.bytesSent()}`)
  })

  test('V4 carries how long Vault asks to wait, five minutes at most', async () => {
    const waits = async (header: string) =>
      (await meeting(answer(429, errors(), { 'retry-after': header }))).error.retryAfterMs
    assert.equal(await waits('7'), 7000)
    assert.equal(await waits('86400'), 300_000)
    const soon = await waits(new Date(Date.now() + 60_000).toUTCString())
    assert.ok(soon !== undefined && soon > 50_000 && soon <= 60_000, `${soon}`)
    assert.equal(await waits('soon'), undefined)
  })

  test('V5 is asked for five times while the node lags behind, without a new login', async () => {
    await using server = await startFaultProxy(answering(answer(412, errors('required index state not present'))))
    const { vault } = openVault(server.address, {}, quickClock)
    await using _ = vault
    assert.equal((await failure(vault.sign(request, forever))).code, 'VAULT_NOT_REPLICATED')
    assert.deepEqual(
      server.requests.map(({ url }) => url),
      ['/v1/auth/token/lookup-self', ...Array<string>(5).fill('/v1/pki/sign/web')],
    )
  })

  test('V5 counts once the node has caught up', async () => {
    let asked = 0
    await using server = await startFaultProxy(answering(() => (++asked < 3 ? answer(412) : answer(200, issued))))
    const { vault } = openVault(server.address, {}, quickClock)
    await using _ = vault
    assert.equal((await vault.sign(request, forever)).certificate, 'PEM')
  })

  test('V31 is quoted in one line, without control characters, tokens and keys, and not for ever', async () => {
    const hostile = `bad\r\n\u0000\u001b[31m hvs.${'canary'.repeat(5)} -----BEGIN EC PRIVATE KEY-----canary ${'x'.repeat(5000)}`
    const { message } = (await meeting(answer(400, errors(hostile)))).error
    assert.match(message, /^[\x20-\x7e…]*$/)
    assert.doesNotMatch(message, /canary/)
    assert.ok(message.length < 400)
  })

  describe('V31 that echoes what it was told in confidence', () => {
    const token = 'canary-0f3d-8b+c1'
    const where = { auth: { kind: 'token', token } }
    const echoes = [token, token.toUpperCase(), JSON.stringify(token), encodeURIComponent(token), btoa(`x${token}`)]
    const HIDDEN = /canary|8b%2bc1|MGYzZC04YitjM/i
    const long = `${'x'.repeat(290)}${token}`

    for (const [how, fault] of Object.entries({
      'in its errors': answer(400, errors(...echoes)),
      'where its errors are cut off': answer(400, errors(long)),
      'in the reason of a denial': answer(403, errors(...echoes)),
      'with 503': answer(503, errors(...echoes)),
      'as a content type': answer(502, 'x', { 'content-type': `text/html; a=${token}` }),
      'as the host of a redirect': answer(307, '', {
        location: `https://${encodeURIComponent(token)}/`,
      }),
      'as the path of a redirect': answer(301, '', { location: `https://localhost/${token}` }),
      'in a field that is of another type': answer(200, { data: { certificate: { [token]: token } } }),
    }))
      test(`${how} is told without it`, async () => {
        await using server = await startFaultProxy(answering(fault))
        const { vault, told } = openVault(server.address, where)
        await using _ = vault
        const { message } = await failure(vault.sign(request, forever))
        assert.doesNotMatch(message, HIDDEN)
        assert.doesNotMatch(JSON.stringify(told), HIDDEN)
      })

    test('in a warning is told without it', async () => {
      await using server = await startFaultProxy(answering(answer(200, { ...issued, warnings: [...echoes, long] })))
      const { vault, told } = openVault(server.address, where)
      await using _ = vault
      await vault.sign(request, forever)
      assert.equal(told.onWarning.length, 1 + new Set(told.onWarning.slice(1).map(({ message }) => message)).size)
      assert.match(JSON.stringify(told.onWarning), /\[secret\]/)
      assert.doesNotMatch(JSON.stringify(told), HIDDEN)
    })

    test('is told without the secret_id of an earlier request, too', async () => {
      const [role_id, secret_id] = ['canary-role', 'canary-secret-id']
      await using server = await startFaultProxy(({ url }) =>
        url.endsWith('/login')
          ? answer(200, { auth: { client_token: token, lease_duration: 60, renewable: false } })
          : answer(400, errors(`${role_id} ${secret_id} ${token}`)),
      )
      const { vault } = openVault(server.address, { auth: { kind: 'approle', roleId: role_id, secretId: secret_id } })
      await using _ = vault
      const { message } = await failure(vault.sign(request, forever))
      assert.match(message, /: \[secret\] \[secret\] \[secret\]$/)
      assert.deepEqual(JSON.parse(server.requests[0]?.body ?? ''), { role_id, secret_id })
    })
  })

  test('V28 may lack the lists that it would leave empty', async () => {
    await using server = await startFaultProxy(answering(answer(200, { data: { certificate: 'PEM' } })))
    const { vault } = openVault(server.address)
    await using _ = vault
    assert.deepEqual(await vault.sign(request, forever), {
      certificate: 'PEM',
      issuingCa: '',
      caChain: [],
    })
  })
})
