import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { askCloud } from '../../src/vault/auth/cloud.ts'
import { answer, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { failure, forever, lookupSelf, openVault } from './support.ts'

const JWT = 'e30.eyJzdWIiOiJtYWNoaW5lIn0.c2ln'

/** A Vault that takes what one metadata service gives. */
const startBoth = async (metadata: FaultProxy['onRequest']) => {
  const cloud = await startFaultProxy(metadata)
  const vault = await startFaultProxy(({ url, body }) => {
    if (url === '/v1/auth/token/lookup-self') return lookupSelf
    if (!body.includes(JWT)) return answer(400, { errors: [`wrong token ${body}`] })
    return answer(200, { auth: { client_token: 'hvs.cloud', lease_duration: 3600, renewable: true } })
  })
  return {
    cloud,
    vault,
    [Symbol.asyncDispose]: async () => {
      await cloud[Symbol.asyncDispose]()
      await vault[Symbol.asyncDispose]()
    },
  }
}

describe('auth gcp', () => {
  const identity: FaultProxy['onRequest'] = ({ url, headers }) => {
    const { pathname, searchParams } = new URL(url, 'http://x')
    if (headers['metadata-flavor'] !== 'Google') return answer(403, 'Missing Metadata-Flavor:Google header.')
    if (!/^\/computeMetadata\/v1\/instance\/service-accounts\/(?:default|app@p\.example)\/identity$/.test(pathname))
      return answer(404, 'no such account')
    assert.deepEqual(Object.fromEntries(searchParams), { audience: 'https://vault/web', format: 'full' })
    return answer(200, `${JWT}\n`)
  }

  test('sends the identity token that the metadata service made for this role', async () => {
    for (const more of [{}, { serviceAccount: 'app@p.example', mount: 'clouds/google' }]) {
      await using both = await startBoth(identity)
      const auth = { kind: 'gcp', role: 'web', metadataAddress: both.cloud.address, ...more }
      await using vault = openVault(both.vault.address, { auth }).vault
      await vault.lookupSelf(forever)
      const [login] = both.vault.requests
      assert.equal(login?.url, `/v1/auth/${'mount' in more ? more.mount : 'gcp'}/login`)
      assert.deepEqual(JSON.parse(login?.body ?? ''), { role: 'web', jwt: JWT })
    }
  })

  test('says what the metadata service answered, and asks Vault nothing', async () => {
    await using both = await startBoth(identity)
    const metadataAddress = both.cloud.address
    const auth = { kind: 'gcp', role: 'web', metadataAddress, serviceAccount: 'nosuch' }
    await using vault = openVault(both.vault.address, { auth }).vault
    const { code, message } = await failure(vault.lookupSelf(forever))
    const path = 'computeMetadata/v1/instance/service-accounts/nosuch/identity'
    assert.deepEqual([code, message], ['AUTH_SOURCE', `GET ${metadataAddress}/${path}: 404 no such account`])
    assert.equal(both.vault.requests.length, 0)
  })

  test('tells of a refused token what it says of itself, and never the token', async () => {
    const other = 'e30.eyJzdWIiOiJvdGhlciJ9.c2ln'
    await using both = await startBoth(() => answer(200, other))
    const auth = { kind: 'gcp', role: 'web', metadataAddress: both.cloud.address }
    await using vault = openVault(both.vault.address, { auth }).vault
    const { code, message } = await failure(vault.lookupSelf(forever))
    assert.equal(code, 'AUTH_FAILED')
    assert.ok(message.includes(`; ${both.cloud.address} holds a JWT of other, issued by nobody`), message)
    assert.ok(!message.includes(other))
  })
})

describe('auth azure', () => {
  const compute = { subscriptionId: 'sub-1', resourceGroupName: 'group-1', name: 'vm-1' }
  const metadata =
    (scaleSet: string | undefined, expected: Record<string, string> = {}): FaultProxy['onRequest'] =>
    ({ url, headers }) => {
      const { pathname, searchParams } = new URL(url, 'http://x')
      if (headers.metadata !== 'true') return answer(400, 'Required metadata header not specified')
      const query = Object.fromEntries(searchParams)
      if (pathname === '/metadata/instance') {
        assert.deepEqual(query, { 'api-version': '2021-02-01' })
        return answer(200, { compute: { ...compute, ...(scaleSet !== undefined && { vmScaleSetName: scaleSet }) } })
      }
      assert.equal(pathname, '/metadata/identity/oauth2/token')
      const standard = { 'api-version': '2018-02-01', resource: 'https://management.azure.com/' }
      assert.deepEqual(query, { ...standard, ...expected })
      return answer(200, { access_token: JWT, token_type: 'Bearer' })
    }

  test('sends the access token of the machine, with where and what it is', async () => {
    const where = { subscription_id: 'sub-1', resource_group_name: 'group-1' }
    const clientId = '01234567-89ab-cdef-0123-456789abcdef'
    const rows = [
      [metadata(undefined), {}, { vm_name: 'vm-1' }],
      [metadata(''), {}, { vm_name: 'vm-1' }],
      [metadata('set-1'), {}, { vmss_name: 'set-1' }],
      [metadata('', { client_id: clientId }), { clientId }, { vm_name: 'vm-1' }],
      [metadata('', { resource: 'api://vault' }), { resource: 'api://vault' }, { vm_name: 'vm-1' }],
    ] as const
    for (const [respond, more, machine] of rows) {
      await using both = await startBoth(respond)
      const auth = { kind: 'azure', role: 'web', metadataAddress: both.cloud.address, ...more }
      await using vault = openVault(both.vault.address, { auth }).vault
      await vault.lookupSelf(forever)
      const [login] = both.vault.requests
      assert.equal(login?.url, '/v1/auth/azure/login')
      assert.deepEqual(JSON.parse(login?.body ?? ''), { role: 'web', jwt: JWT, ...where, ...machine })
    }
  })

  test('says what the metadata service answered, and asks Vault nothing', async () => {
    await using both = await startBoth(() =>
      answer(400, { error: 'invalid_request', error_description: 'no identity' }),
    )
    const auth = { kind: 'azure', role: 'web', metadataAddress: both.cloud.address }
    await using vault = openVault(both.vault.address, { auth }).vault
    const { code, message } = await failure(vault.lookupSelf(forever))
    assert.equal(code, 'AUTH_SOURCE')
    assert.match(message, /\/metadata\/identity\/oauth2\/token: 400 .*no identity/)
    assert.equal(both.vault.requests.length, 0)
  })
})

describe('a request to a service of the cloud', () => {
  const body = (server: FaultProxy) => askCloud({ url: `${server.address}/x` }, forever)

  test('is read up to 64 KiB, and no further', async () => {
    for (const fault of [{ kind: 'flood' }, answer(200, 'x'.repeat(70_000))] as const) {
      await using server = await startFaultProxy(() => fault)
      const { code, message } = await failure(body(server))
      assert.equal(code, 'AUTH_SOURCE')
      assert.match(message, /: UND_ERR_RES_EXCEEDED_MAX_SIZE$/)
    }
    await using server = await startFaultProxy(() => answer(200, 'x'.repeat(65_000)))
    assert.equal((await body(server)).length, 65_000)
  })

  test('that is cut off is told with what cut it off', async () => {
    await using server = await startFaultProxy(() => ({ kind: 'reset' }))
    const { code, message } = await failure(body(server))
    assert.equal(code, 'AUTH_SOURCE')
    assert.match(message, /^GET http:\/\/127\.0\.0\.1:\d+\/x: (?:ECONNRESET|UND_ERR_SOCKET)$/)
  })

  test('ends at once when it is no longer wanted', async () => {
    const stop = new AbortController()
    const reason = new Error('stop now')
    await using server = await startFaultProxy(() => {
      setImmediate(() => stop.abort(reason))
      return { kind: 'silence' }
    })
    await assert.rejects(askCloud({ url: server.address }, stop.signal), reason)
  })
})
