import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { leaveOutReason, skipReason } from '../support/components.ts'
import { CONSUL, startConsul } from '../support/consul.ts'
import { startLdap } from '../support/ldap.ts'
import { startLeasedDelivery } from '../support/leased-delivery.ts'
import {
  credentialsIn,
  type LeasingPath,
  type LeasingRole,
  setupConsul,
  setupDatabase,
  setupLdap,
  setupLeasedCertificates,
  setupOneTimePasswords,
  setupRabbitmq,
  setupStaticRole,
  type TestLease,
  takeLease,
} from '../support/leasing.ts'
import { startPostgres } from '../support/postgres.ts'
import { startRabbitmq } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'

interface Engine {
  readonly title: string
  readonly skip: false | string
  readonly isRenewable: boolean
  /** What it starts ends with `stack`. */
  readonly start: (stack: AsyncDisposableStack) => Promise<Started>
}

interface Started {
  readonly vault: TestVault
  readonly setup: (role: LeasingRole) => Promise<LeasingPath>
  /** Whether what was handed out is good for something now; it may be used up by that. */
  readonly works: (data: TestLease['data']) => Promise<boolean>
}

const ENGINES: readonly Engine[] = [
  {
    title: 'database, with PostgreSQL',
    skip: await skipReason('vault', 'vault-plugin-database-postgresql', 'postgres'),
    isRenewable: true,
    start: async (stack) => {
      const postgres = stack.use(await startPostgres())
      const vault = stack.use(await startVault({ engines: ['database'] }))
      const setup = (role: LeasingRole) => setupDatabase(vault, postgres, role)
      return { vault, setup, works: (data) => postgres.canLogIn(credentialsIn(data)) }
    },
  },
  {
    title: 'rabbitmq',
    skip: await skipReason('vault', 'vault-plugin-secrets-rabbitmq', 'rabbitmq-server'),
    isRenewable: true,
    start: async (stack) => {
      const rabbitmq = stack.use(await startRabbitmq())
      const vault = stack.use(await startVault({ engines: ['rabbitmq'] }))
      const setup = (role: LeasingRole) => setupRabbitmq(vault, rabbitmq, role)
      return { vault, setup, works: (data) => rabbitmq.canLogIn(credentialsIn(data)) }
    },
  },
  {
    title: 'ldap',
    skip: await skipReason('vault', 'vault-plugin-secrets-openldap', 'slapd'),
    isRenewable: true,
    start: async (stack) => {
      const ldap = stack.use(await startLdap({}))
      const vault = stack.use(await startVault({ engines: ['ldap'] }))
      const setup = (role: LeasingRole) => setupLdap(vault, ldap, role)
      const works = (data: TestLease['data']) => {
        const { username, password } = credentialsIn(data)
        return ldap.canLogIn(username, password)
      }
      return { vault, setup, works }
    },
  },
  {
    title: 'consul',
    skip: (await skipReason('vault', 'vault-plugin-secrets-consul')) || (await leaveOutReason(CONSUL)),
    isRenewable: true,
    start: async (stack) => {
      const consul = stack.use(await startConsul())
      const vault = stack.use(await startVault({ engines: ['consul'] }))
      const setup = (role: LeasingRole) => setupConsul(vault, consul, role)
      return { vault, setup, works: ({ token }) => consul.knows(`${token}`) }
    },
  },
  {
    title: 'pki, where certificates are leased',
    skip: await skipReason('vault'),
    isRenewable: false,
    start: async (stack) => {
      const vault = stack.use(await startVault())
      await vault.setupPki()
      const setup = (role: LeasingRole) => setupLeasedCertificates(vault, role)
      const isGood = async (serial: unknown) =>
        (await vault.api('GET', `pki/cert/${serial}`)).data?.revocation_time === 0
      return { vault, setup, works: ({ serial_number: serial }) => isGood(serial) }
    },
  },
  {
    title: 'ssh, with one-time passwords',
    skip: await skipReason('vault'),
    isRenewable: false,
    start: async (stack) => {
      const vault = stack.use(await startVault())
      const setup = (role: LeasingRole) => setupOneTimePasswords(vault, role)
      const works = ({ key }: TestLease['data']) =>
        vault.api('POST', 'ssh-otp/verify', { otp: key }).then(
          () => true,
          (error: Error) => {
            assert.match(error.message, /OTP not found/)
            return false
          },
        )
      return { vault, setup, works }
    },
  },
]

for (const { title, skip, isRenewable, start } of ENGINES) {
  describe(`the secrets engine ${title}`, { skip }, () => {
    const stack = new AsyncDisposableStack()
    let started: Started
    before(async () => {
      started = await start(stack)
    })
    after(() => stack.disposeAsync())
    const setup = () => started.setup({ role: 'app', ttl: '1m', maxTtl: '2m' })
    const take = async () => takeLease(started.vault, await setup())
    const renewals = async () =>
      (await started.vault.audited()).filter(({ path }) => path === 'sys/leases/renew').length

    test('is one of those that certferry delivers from, also after its lease was revoked', async () => {
      const leasing = await setup()
      await using certferry = startLeasedDelivery(started.vault, leasing)
      const first = await until('it is delivered', certferry.delivered)
      assert.ok(await started.works(first))
      await started.vault.api('POST', `sys/leases/revoke-prefix/${leasing.path}`)
      const isNext = () => !isDeepStrictEqual(certferry.delivered(), first) && certferry.delivered()
      const next = await until('another one is delivered', isNext)
      assert.ok(await started.works(next))
      assert.equal(await started.works(first), false)
    })

    test('leases what works, and takes it back when the lease is revoked', async () => {
      const [used, revoked] = [await take(), await take()]
      assert.notEqual(used.id, revoked.id)
      // That of a certificate ends with it, within the minute.
      assert.ok(used.ttlSeconds >= 50 && used.ttlSeconds <= 60, `${used.ttlSeconds} s`)
      assert.ok(await started.works(used.data))
      await revoked.revoke()
      assert.equal(await revoked.secondsLeft(), 0)
      assert.equal(await started.works(revoked.data), false)
      await assert.rejects(revoked.renew(), /lease not found/)
    })

    if (isRenewable) {
      test('is one of those whose leases certferry renews, and delivers nothing else meanwhile', async () => {
        const leasing = await started.setup({ role: 'app', ttl: '4s', maxTtl: '1h' })
        await using certferry = startLeasedDelivery(started.vault, leasing)
        const first = await until('it is delivered', certferry.delivered)
        const before = await renewals()
        await until('it was renewed twice', async () => (await renewals()) >= before + 2)
        assert.deepEqual(certferry.delivered(), first)
        assert.ok(await started.works(first))
      })

      test('renews a lease for as long as is asked, and ends it then', async () => {
        const [long, short] = [await take(), await take()]
        assert.ok(long.isRenewable)
        assert.equal(await long.renew('90s'), 90)
        assert.equal(await short.renew('1s'), 1)
        await until('the short one is over', async () => !(await started.works(short.data)))
        await until('its lease is gone', async () => (await short.secondsLeft()) === 0)
        assert.ok((await long.secondsLeft()) > 0)
        assert.ok(await started.works(long.data))
      })

      test('renews no lease beyond its longest life', async () => {
        const granted = await (await take()).renew('10h')
        assert.ok(granted > 60 && granted <= 120, `${granted} s`)
      })
    } else {
      test('does not renew what it leases', async () => {
        const lease = await take()
        assert.equal(lease.isRenewable, false)
        await assert.rejects(lease.renew(), /lease is not renewable/)
      })
    }
  })
}

describe('PostgreSQL for the tests', {
  skip: await skipReason('vault', 'vault-plugin-database-postgresql', 'postgres'),
}, () => {
  test('has a user whose password a static role changes by the clock, without a lease', async () => {
    await using postgres = await startPostgres()
    await using vault = await startVault({ engines: ['database'] })
    // Vault looks for what is due every five seconds, and takes no shorter period.
    const role = { role: 'report', username: 'report', rotationPeriod: '5s' }
    const { path } = await setupStaticRole(vault, postgres, role)
    const read = async () => {
      const { lease_id: lease, data } = await vault.api('GET', path)
      assert.equal(lease, '')
      return credentialsIn(data ?? {})
    }
    const readWorking = () =>
      until('what is read works', async () => {
        const credentials = await read()
        return (await postgres.canLogIn(credentials)) && credentials
      })
    const first = await readWorking()
    await until('the password is another one', async () => !(await postgres.canLogIn(first)))
    const second = await readWorking()
    assert.equal(second.username, first.username)
    assert.notEqual(second.password, first.password)
  })

  test('is down in between, and keeps its users; who cannot be asked is not taken for refused', async () => {
    await using postgres = await startPostgres()
    await postgres.query("CREATE ROLE app WITH LOGIN PASSWORD 'right'")
    const right = { username: 'app', password: 'right' }
    await postgres.stop()
    await assert.rejects(postgres.canLogIn(right), /Connection refused/)
    await postgres.start()
    assert.ok(await postgres.canLogIn(right))
    assert.equal(await postgres.canLogIn({ ...right, password: 'wrong' }), false)
  })
})
