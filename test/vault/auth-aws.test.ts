import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import * as z from 'zod'
import { Secret } from '../../src/core/secret.ts'
import { findCredentials } from '../../src/vault/auth/aws-credentials.ts'
import { signed } from '../../src/vault/auth/aws-signature.ts'
import { createVault } from '../../src/vault/client.ts'
import { answer, type SeenRequest, startFaultProxy } from '../support/fault-proxy.ts'
import { failure, forever, lookupSelf, recorder, vaultOptions } from './support.ts'

let directory: string
const save = async (name: string, content: string) => {
  const path = join(directory, name)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, content)
  return path
}
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'certferry-auth-aws-'))
})
after(() => rm(directory, { recursive: true }))

describe('a signature for AWS', () => {
  const request = { host: 'example.amazonaws.com', region: 'us-east-1', service: 'service', headers: {}, body: '' }
  const keys = {
    accessKeyId: 'AKIDEXAMPLE',
    secretAccessKey: new Secret('wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'),
    sessionToken: undefined,
  }
  const sessionToken = new Secret(
    'AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==',
  )
  /** Those of the Signature Version 4 test suite that AWS publishes which are a POST to `/`. */
  const vectors: [name: string, more: object, keys: object, names: string, signature: string][] = [
    ['post-vanilla', {}, {}, 'host;x-amz-date', '5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b'],
    [
      'post-x-www-form-urlencoded',
      { headers: { 'Content-Type': 'application/x-www-form-urlencoded' }, body: 'Param1=value1' },
      {},
      'content-type;host;x-amz-date',
      'ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a',
    ],
    [
      'post-sts-header-before',
      {},
      { sessionToken },
      'host;x-amz-date;x-amz-security-token',
      '85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead',
    ],
  ]
  for (const [name, more, moreKeys, names, signature] of vectors)
    test(`is that of the test suite: ${name}`, () => {
      const now = Date.UTC(2015, 7, 30, 12, 36, 0)
      const { authorization } = signed({ ...request, ...more, now }, { ...keys, ...moreKeys })
      const credential = 'AKIDEXAMPLE/20150830/us-east-1/service/aws4_request'
      assert.equal(
        authorization,
        `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${names}, Signature=${signature}`,
      )
    })
})

describe('credentials of AWS', () => {
  const find = (env: Record<string, string>, address = 'http://127.0.0.1:1') =>
    findCredentials({ env, metadataAddress: address, stsAddress: address }, forever)
  const keysOf = async (found: ReturnType<typeof find>) => {
    const { accessKeyId, secretAccessKey, sessionToken, place } = await found
    return [accessKeyId, secretAccessKey.reveal(), sessionToken?.reveal(), place]
  }
  const temporary = { AccessKeyId: 'ASIA1', SecretAccessKey: 'key-1', Token: 'token-1' }

  test('are those of the environment before all others', async () => {
    const env = { AWS_ACCESS_KEY_ID: 'AKIA1', AWS_SECRET_ACCESS_KEY: 'key-1', AWS_WEB_IDENTITY_TOKEN_FILE: '/nowhere' }
    assert.deepEqual(await keysOf(find(env)), ['AKIA1', 'key-1', undefined, 'the environment'])
    const more = { ...env, AWS_SESSION_TOKEN: 'token-1' }
    assert.deepEqual(await keysOf(find(more)), ['AKIA1', 'key-1', 'token-1', 'the environment'])
  })

  test('of a service account come from STS, for its token as it is now', async () => {
    const tokens: unknown[] = []
    await using sts = await startFaultProxy(({ method, url, body, headers }) => {
      const sent = new URLSearchParams(body)
      tokens.push(sent.get('WebIdentityToken'))
      assert.deepEqual(
        [method, url, headers.accept, sent.get('Action'), sent.get('RoleArn'), sent.get('RoleSessionName')],
        ['POST', '/', 'application/json', 'AssumeRoleWithWebIdentity', 'arn:aws:iam::1:role/web', 'certferry'],
      )
      const { AccessKeyId, SecretAccessKey, Token: SessionToken } = temporary
      const result = { Credentials: { AccessKeyId, SecretAccessKey, SessionToken } }
      return answer(200, {
        AssumeRoleWithWebIdentityResponse: { AssumeRoleWithWebIdentityResult: result },
      })
    })
    const tokenFile = await save('identity', 'jwt-1\n')
    const env = { AWS_WEB_IDENTITY_TOKEN_FILE: tokenFile, AWS_ROLE_ARN: 'arn:aws:iam::1:role/web' }
    const expected = ['ASIA1', 'key-1', 'token-1', `arn:aws:iam::1:role/web by ${tokenFile}`]
    assert.deepEqual(await keysOf(find(env, sts.address)), expected)
    await save('identity', 'jwt-2\n')
    await find(env, sts.address)
    assert.deepEqual(tokens, ['jwt-1', 'jwt-2'])
  })

  test('of a file are those of the profile, wherever the file is', async () => {
    const text = [
      '[default]',
      'aws_access_key_id = AKIA1',
      'aws_secret_access_key=key=1/+',
      '# a remark',
      '',
      '[ other ]',
      'aws_access_key_id=ASIA2',
      'aws_secret_access_key = key-2',
      'aws_session_token = token-2',
      '[empty]',
      '[last]',
      'aws_access_key_id = AKIA3',
    ].join('\r\n')
    const file = await save('home/.aws/credentials', text)
    const HOME = join(directory, 'home')
    assert.deepEqual(await keysOf(find({ HOME })), ['AKIA1', 'key=1/+', undefined, `profile default of ${file}`])
    const other = { HOME: '/nowhere', AWS_SHARED_CREDENTIALS_FILE: file, AWS_PROFILE: 'other' }
    assert.deepEqual(await keysOf(find(other)), ['ASIA2', 'key-2', 'token-2', `profile other of ${file}`])
    for (const profile of ['empty', 'last', 'nosuch']) {
      const { code, message } = await failure(find({ HOME, AWS_PROFILE: profile }))
      assert.deepEqual([code, message], ['AUTH_SOURCE', `${file} has no keys of the profile ${profile}`])
    }
  })

  test('of a container come from its address, with the token that it asks for', async () => {
    await using server = await startFaultProxy(({ url, headers }) =>
      url === '/role?x=1' && headers.authorization === 'pod-token' ? answer(200, temporary) : answer(401, 'who?'),
    )
    const full = { AWS_CONTAINER_CREDENTIALS_FULL_URI: `${server.address}/role?x=1` }
    const tokenFile = await save('pod-token', 'pod-token\n')
    const expected = ['ASIA1', 'key-1', 'token-1', `the container credentials of ${server.address}`]
    const byFile = { ...full, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: tokenFile }
    assert.deepEqual(await keysOf(find(byFile)), expected)
    const byValue = { ...full, AWS_CONTAINER_AUTHORIZATION_TOKEN: 'pod-token' }
    assert.deepEqual(await keysOf(find(byValue)), expected)
    const { code, message } = await failure(find({ ...full, AWS_CONTAINER_AUTHORIZATION_TOKEN: 'wrong' }))
    assert.deepEqual([code, message], ['AUTH_SOURCE', `GET ${server.address}/role: 401 who?`])
  })

  test('of a container are not asked for where others could listen', async () => {
    for (const url of ['http://example.com/role', 'http://169.254.170.3/', 'ftp://127.0.0.1/', 'nonsense']) {
      const { code, message } = await failure(find({ AWS_CONTAINER_CREDENTIALS_FULL_URI: url }))
      assert.equal(code, 'AUTH_SOURCE')
      assert.match(message, /is neither https nor on an address that leads no further than the host$/)
    }
  })

  /** An instance metadata service of version 2 alone. */
  const instance = ({ method, url, headers }: SeenRequest) => {
    if (method === 'PUT' && url === '/latest/api/token')
      return headers['x-aws-ec2-metadata-token-ttl-seconds'] === '60' ? answer(200, 'session-1') : answer(400)
    if (headers['x-aws-ec2-metadata-token'] !== 'session-1') return answer(401)
    if (url === '/latest/meta-data/iam/security-credentials/') return answer(200, 'web-role')
    if (url === '/latest/meta-data/iam/security-credentials/web-role')
      return answer(200, { Code: 'Success', ...temporary, Expiration: '2030-01-01T00:00:00Z' })
    return answer(404)
  }

  test('of an instance come from IMDSv2, where nothing else is set up', async () => {
    await using server = await startFaultProxy(instance)
    const expected = ['ASIA1', 'key-1', 'token-1', 'role web-role of the instance']
    assert.deepEqual(await keysOf(find({}, server.address)), expected)
    assert.deepEqual(await keysOf(find({ HOME: '/nowhere' }, server.address)), expected)
  })

  const broken: [title: string, env: Record<string, string>, told: RegExp][] = [
    ['half a key', { AWS_ACCESS_KEY_ID: 'AKIA1' }, /^AWS_SECRET_ACCESS_KEY is not set$/],
    ['the other half', { AWS_SECRET_ACCESS_KEY: 'key-1' }, /^AWS_ACCESS_KEY_ID is not set$/],
    ['a token without a role', { AWS_WEB_IDENTITY_TOKEN_FILE: '/nowhere' }, /not AWS_ROLE_ARN$/],
    [
      'a token that is not there',
      { AWS_WEB_IDENTITY_TOKEN_FILE: '/nowhere', AWS_ROLE_ARN: 'x' },
      /^cannot read \/nowhere \(ENOENT\)$/,
    ],
    ['a file that is not there', { AWS_SHARED_CREDENTIALS_FILE: '/nowhere' }, /^\/nowhere is not there$/],
    ['a file that is none', { AWS_SHARED_CREDENTIALS_FILE: '/' }, /^cannot read \/ \(EISDIR\)$/],
    ['metadata switched off', { AWS_EC2_METADATA_DISABLED: 'true' }, /^there are no AWS credentials: /],
    ['no metadata service', {}, /^PUT http:\/\/127\.0\.0\.1:1\/latest\/api\/token: ECONNREFUSED$/],
  ]
  for (const [title, env, told] of broken)
    test(`that are set up and do not work are told, and no other ones taken: ${title}`, async () => {
      const { code, message } = await failure(find(env))
      assert.equal(code, 'AUTH_SOURCE')
      assert.match(message, told)
    })

  test('of an instance that answers anything else are told so, without its session', async () => {
    const rows = [
      [() => answer(403, 'no metadata for session-1'), /: 403 no metadata for session-1$/],
      [
        (seen: SeenRequest) => (seen.method === 'PUT' ? instance(seen) : answer(404, 'no role, session-1')),
        /: 404 no role, \[secret\]$/,
      ],
      [
        (seen: SeenRequest) => (seen.url.endsWith('web-role') ? answer(200, { Code: 'Failed' }) : instance(seen)),
        /the answer is not as documented at "AccessKeyId"/,
      ],
      [(seen: SeenRequest) => (seen.url.endsWith('web-role') ? answer(200, 'x') : instance(seen)), /not as documented/],
      [() => answer(302, '', { location: 'http://example.com/' }), /: 302/],
    ] as const
    for (const [respond, told] of rows) {
      await using server = await startFaultProxy(respond)
      const { code, message } = await failure(find({}, server.address))
      assert.equal(code, 'AUTH_SOURCE')
      assert.match(message, told)
    }
  })
})

describe('auth aws', () => {
  const Body = z.strictObject({
    role: z.string().optional(),
    iam_http_request_method: z.string(),
    iam_request_url: z.base64(),
    iam_request_body: z.base64(),
    iam_request_headers: z.base64(),
  })
  const open = (address: string, auth: object, env: Record<string, string>) =>
    createVault(vaultOptions(address, { auth: { kind: 'aws', ...auth } }), { ...recorder().deps, env })
  const vaultOf = (identity: string) => (seen: SeenRequest) => {
    if (seen.url === '/v1/auth/token/lookup-self') return lookupSelf
    const headers = Buffer.from(Body.parse(JSON.parse(seen.body)).iam_request_headers, 'base64').toString()
    if (!headers.includes(identity)) return answer(400, { errors: [`unknown principal ${seen.body}`] })
    return answer(200, { auth: { client_token: 'hvs.aws', lease_duration: 3600, renewable: true } })
  }

  test('sends a request to STS that is signed, with the header that Vault wants', async () => {
    const rows = [
      [{}, 'sts.amazonaws.com', 'us-east-1'],
      [{ region: 'eu-north-1', role: 'web' }, 'sts.eu-north-1.amazonaws.com', 'eu-north-1'],
      [{ region: 'cn-north-1' }, 'sts.cn-north-1.amazonaws.com.cn', 'cn-north-1'],
      [{ stsAddress: 'https://sts.example.com/' }, 'sts.example.com', 'us-east-1'],
    ] as const
    for (const [more, host, region] of rows) {
      await using server = await startFaultProxy(vaultOf('AKIA1'))
      const env = { AWS_ACCESS_KEY_ID: 'AKIA1', AWS_SECRET_ACCESS_KEY: 'key-1', AWS_SESSION_TOKEN: 'token-1' }
      await using vault = open(server.address, { serverId: 'vault.example.com', ...more }, env)
      await vault.lookupSelf(forever)
      const [login] = server.requests
      assert.equal(login?.url, '/v1/auth/aws/login')
      assert.equal(login?.headers['x-vault-token'], undefined)
      const sent = Body.parse(JSON.parse(login?.body ?? ''))
      const text = (encoded: string) => Buffer.from(encoded, 'base64').toString()
      assert.equal(sent.role, 'role' in more ? more.role : undefined)
      assert.equal(sent.iam_http_request_method, 'POST')
      assert.equal(text(sent.iam_request_url), `https://${host}/`)
      assert.equal(text(sent.iam_request_body), 'Action=GetCallerIdentity&Version=2011-06-15')
      const headers = z.record(z.string(), z.string()).parse(JSON.parse(text(sent.iam_request_headers)))
      assert.deepEqual(
        [headers.host, headers['x-vault-aws-iam-server-id'], headers['x-amz-security-token']],
        [host, 'vault.example.com', 'token-1'],
      )
      assert.ok(headers.authorization?.includes(`/${region}/sts/aws4_request, SignedHeaders=content-length;`))
      assert.ok(headers.authorization?.includes(';x-amz-security-token;x-vault-aws-iam-server-id, '))
      assert.ok(!login?.body.includes('key-1') && !text(sent.iam_request_headers).includes('key-1'))
    }
  })

  test('V15 credentials that were replaced are used at once, though the old ones were just refused', async () => {
    await using server = await startFaultProxy(vaultOf('AKIA2'))
    const keys = (id: string) => `[default]\naws_access_key_id=${id}\naws_secret_access_key=key-of-${id}\n`
    const file = await save('replaced', keys('AKIA1'))
    await using vault = open(server.address, {}, { AWS_SHARED_CREDENTIALS_FILE: file })
    const { code, message } = await failure(vault.lookupSelf(forever))
    assert.equal(code, 'AUTH_FAILED')
    assert.match(message, /"iam_request_headers":"\[secret\]"\}; signed by AKIA1, of profile default of \S+replaced$/)
    assert.match((await failure(vault.lookupSelf(forever))).message, /tried again in/)
    assert.equal(server.requests.length, 1)
    await save('replaced', keys('AKIA2'))
    await vault.lookupSelf(forever)
  })
})
