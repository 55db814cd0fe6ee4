import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { skipReason } from '../support/components.ts'
import { CONTROL_PLANE, startKubernetes, type TestKubernetes } from '../support/kubernetes.ts'
import { startLeasedDelivery } from '../support/leased-delivery.ts'
import { type LeasingPath, setupServiceAccounts, type TestLease, takeLease } from '../support/leasing.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'

const skip = await skipReason('vault', 'vault-plugin-secrets-kubernetes', ...CONTROL_PLANE)

describe('the secrets engine kubernetes', { skip }, () => {
  const stack = new AsyncDisposableStack()
  let cluster: TestKubernetes
  let vault: TestVault
  let leasing: LeasingPath

  before(async () => {
    cluster = stack.use(await startKubernetes())
    vault = stack.use(await startVault({ engines: ['kubernetes'] }))
    await cluster.createNamespace('shop')
    leasing = await setupServiceAccounts(vault, cluster, { role: 'app', namespace: 'shop' })
  })
  after(() => stack.disposeAsync())

  const statusFor = async (data: TestLease['data'], namespace: string) => {
    const options = { token: String(data.service_account_token) }
    return (await cluster.send('GET', `/api/v1/namespaces/${namespace}/pods`, undefined, options)).status
  }
  // The API server hears of new rights, and forgets tokens, a little later.
  const untilStatus = (status: number, data: TestLease['data']) =>
    until(`the API server answers ${status}`, async () => (await statusFor(data, 'shop')) === status)

  test('leases a service account that may do what its role says, and deletes it when the lease is revoked', async () => {
    const lease = await takeLease(vault, leasing)
    assert.equal(lease.ttlSeconds, 600)
    await untilStatus(200, lease.data)
    assert.equal(await statusFor(lease.data, 'kube-system'), 403)
    await lease.revoke()
    assert.equal(await lease.secondsLeft(), 0)
    await untilStatus(401, lease.data)
  })

  test('is one of those that certferry delivers from, also after its lease was revoked', async () => {
    await using certferry = startLeasedDelivery(vault, leasing)
    const first = await until('it is delivered', certferry.delivered)
    await untilStatus(200, first)
    await vault.api('POST', `sys/leases/revoke-prefix/${leasing.path}`)
    const isNext = () => !isDeepStrictEqual(certferry.delivered(), first) && certferry.delivered()
    await untilStatus(200, await until('another one is delivered', isNext))
    await untilStatus(401, first)
  })

  test('does not renew what it leases', async () => {
    const lease = await takeLease(vault, leasing)
    assert.equal(lease.isRenewable, false)
    await assert.rejects(lease.renew(), /lease is not renewable/)
  })
})
