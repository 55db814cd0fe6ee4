import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createVault } from '../../src/vault/client.ts'
import { createTestCa } from '../support/ca.ts'
import { answer, type FaultProxy, type SeenRequest, startFaultProxy } from '../support/fault-proxy.ts'
import { until } from '../support/until.ts'
import { forever, openVault, recorder, request, vaultOptions } from './support.ts'

const NAMESPACE = 'team/web'

/** Answers of a Vault whose token is soon to be renewed, whatever it is asked. */
function whole({ url }: SeenRequest) {
  const auth = { client_token: 'hvs.canary-login', lease_duration: url.endsWith('login') ? 2 : 3600, renewable: true }
  switch (url) {
    case '/v1/sys/wrapping/lookup':
      return answer(200, { data: { creation_path: `${NAMESPACE}/auth/approle/role/web/secret-id` } })
    case '/v1/sys/wrapping/unwrap':
      return answer(200, { data: { secret_id: 'canary-secret-id' } })
    case '/v1/sys/wrapping/wrap':
      return answer(200, { wrap_info: { token: 'hvs.canary-wrapping' } })
    case '/v1/auth/approle/login':
    case '/v1/auth/token/renew-self':
      return answer(200, { auth })
    case '/v1/sys/health':
      return answer(200, { initialized: true, sealed: false })
    case '/v1/auth/token/lookup-self':
      return answer(200, { data: { ttl: 3600, renewable: true } })
    case '/v1/sys/capabilities-self':
      return answer(200, { data: { capabilities: ['update'] } })
    default:
      return answer(200, { data: { certificate: 'PEM', issuing_ca: 'CA', ca_chain: [] } })
  }
}

/** What was asked, of those requests that said the namespace and of those that did not. */
const asked = (seen: readonly SeenRequest[], isSaid: boolean) =>
  seen.filter(({ headers }) => (headers['x-vault-namespace'] === NAMESPACE) === isSaid).map(({ url }) => url)

describe('the namespace', () => {
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'certferry-namespace-'))
  })
  after(() => rm(directory, { recursive: true }))

  test('is said with every request: login and unwrapping, renewal, what is asked for, wrapping and the end', async () => {
    await using server = await startFaultProxy(whole)
    const secretIdFile = join(directory, 'wrapped')
    await writeFile(secretIdFile, 'hvs.canary-wrap')
    const { deps } = recorder()
    const sunk: string[] = []
    const options = vaultOptions(server.address, {
      namespace: NAMESPACE,
      auth: { kind: 'approle', roleId: 'r', secretIdFile, secretIdWrapped: true },
      tokenSink: { file: '/nowhere/token', wrapTtl: '1m' },
      revokeOnExit: true,
    })
    const vault = createVault(options, { ...deps, writeToken: async (_, token) => void sunk.push(token.reveal()) })
    await using _ = vault
    await vault.sign(request, forever)
    await vault.issue(request, forever)
    await vault.caChain('pki', 'default', forever)
    await vault.health(forever)
    await vault.lookupSelf(forever)
    await vault.capabilities(['pki', 'sign', 'web'], forever)
    await vault.readRole('pki', 'web', forever)
    await vault.secrets.read('database/creds/app', undefined, forever)
    await vault.secrets.renewLease({ id: 'database/creds/app/1', ttlMs: 60_000 }, forever).catch(() => undefined)
    await until('the token was wrapped', () => sunk.length > 0)
    const isRenewed = () => server.requests.some(({ url }) => url === '/v1/auth/token/renew-self')
    await until('the token was renewed', isRenewed)
    await vault.revokeToken()
    assert.deepEqual(asked(server.requests, false), [])
    const paths = [
      '/v1/sys/wrapping/lookup',
      '/v1/sys/wrapping/unwrap',
      '/v1/auth/approle/login',
      '/v1/pki/sign/web',
      '/v1/pki/issue/web',
      '/v1/pki/issuer/default/json',
      '/v1/sys/health',
      '/v1/auth/token/lookup-self',
      '/v1/sys/capabilities-self',
      '/v1/pki/roles/web',
      '/v1/database/creds/app',
      '/v1/sys/leases/renew',
      '/v1/sys/wrapping/wrap',
      '/v1/auth/token/renew-self',
      '/v1/auth/token/revoke-self',
    ]
    const said = asked(server.requests, true)
    assert.deepEqual(
      paths.filter((path) => !said.includes(path)),
      [],
    )
  })

  test('is said to the next node, and after a redirect', async () => {
    const ca = await createTestCa()
    const caFile = join(directory, 'ca.pem')
    await writeFile(caFile, ca.rootPem)
    const { certificatePem: cert, keyPem: key } = await ca.issue({ altNames: ['127.0.0.1'] })
    const serve = (onRequest: FaultProxy['onRequest']) => startFaultProxy(onRequest, { tls: { cert, key } })
    await using leader = await serve(whole)
    await using sealed = await serve(() => answer(503, { errors: ['Vault is sealed'] }))
    await using standby = await serve(({ url }) => answer(307, undefined, { location: `${leader.address}${url}` }))
    const addresses = [sealed.address, standby.address, leader.address]
    const { vault } = openVault(addresses, { caFile, namespace: NAMESPACE })
    await using _ = vault
    await vault.sign(request, forever)
    for (const { requests } of [sealed, standby, leader]) {
      assert.ok(requests.length > 0)
      assert.deepEqual(asked(requests, false), [])
    }
  })

  test('that is not given is not said', async () => {
    await using server = await startFaultProxy(whole)
    const { vault } = openVault(server.address)
    await using _ = vault
    await vault.sign(request, forever)
    assert.ok(server.requests.every(({ headers }) => headers['x-vault-namespace'] === undefined))
  })
})
