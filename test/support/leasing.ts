import * as z from 'zod'
import type { TestConsul } from './consul.ts'
import type { TestKubernetes } from './kubernetes.ts'
import type { LdapServer } from './ldap.ts'
import type { Credentials, TestPostgres } from './postgres.ts'
import type { TestRabbitmq } from './rabbitmq.ts'
import type { TestVault } from './vault.ts'

type Vault = Pick<TestVault, 'api'>

/** A place in Vault that hands out leases: read it, or send it `body` where it wants one. */
export interface LeasingPath {
  readonly path: string
  readonly body?: Readonly<Record<string, string>>
}

export interface LeasingRole {
  /** Of the secrets engine; its kind unless given. */
  readonly mount?: string
  readonly role: string
  /** How long a lease is given for, such as `10s`. */
  readonly ttl?: string
  /** How long one can live by being renewed. */
  readonly maxTtl?: string
}

/** A role of the engine `database`: each read makes a user of PostgreSQL, and what ends the lease drops it. */
export async function setupDatabase(vault: Vault, postgres: TestPostgres, setup: LeasingRole): Promise<LeasingPath> {
  const { mount = 'database', role, ttl = '1h', maxTtl = '24h' } = setup
  await connectDatabase(vault, postgres, mount)
  await vault.api('POST', `${mount}/roles/${role}`, {
    db_name: 'postgres',
    creation_statements: [`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`],
    default_ttl: ttl,
    max_ttl: maxTtl,
  })
  return { path: `${mount}/creds/${role}` }
}

export interface StaticRole {
  readonly mount?: string
  readonly role: string
  /** A user of PostgreSQL, made where there is none. */
  readonly username: string
  /** How often Vault changes its password, such as `10s`. */
  readonly rotationPeriod: string
}

/** A static role of the engine `database`: one user, whose password Vault changes by the clock. What is read has a `ttl` and no lease. */
export async function setupStaticRole(vault: Vault, postgres: TestPostgres, setup: StaticRole): Promise<LeasingPath> {
  const { mount = 'database', role, username, rotationPeriod } = setup
  await connectDatabase(vault, postgres, mount)
  await postgres.query(`CREATE ROLE "${username}" WITH LOGIN`)
  const settings = { db_name: 'postgres', username, rotation_period: rotationPeriod }
  await vault.api('POST', `${mount}/static-roles/${role}`, settings)
  return { path: `${mount}/static-creds/${role}` }
}

async function connectDatabase(vault: Vault, { port, admin }: TestPostgres, mount: string): Promise<void> {
  if (!(await enable(vault, mount, 'database'))) return
  await vault.api('POST', `${mount}/config/postgres`, {
    plugin_name: 'postgresql-database-plugin',
    connection_url: `postgresql://{{username}}:{{password}}@127.0.0.1:${port}/postgres?sslmode=disable`,
    allowed_roles: '*',
    ...admin,
  })
}

/** A role of the engine `rabbitmq`: each read makes a user of RabbitMQ, and what ends the lease deletes it. The mount gives the lifetimes. */
export async function setupRabbitmq(vault: Vault, rabbitmq: TestRabbitmq, setup: LeasingRole): Promise<LeasingPath> {
  const { mount = 'rabbitmq', role, ttl = '1h', maxTtl = '24h' } = setup
  if (await enable(vault, mount, 'rabbitmq')) {
    await vault.api('POST', `${mount}/config/connection`, { connection_uri: rabbitmq.url, ...rabbitmq.admin })
  }
  await vault.api('POST', `${mount}/config/lease`, { ttl, max_ttl: maxTtl })
  await vault.api('POST', `${mount}/roles/${role}`, { tags: 'management' })
  return { path: `${mount}/creds/${role}` }
}

/** A role of the engine `consul`: each read makes a token of Consul, and what ends the lease deletes it. */
export async function setupConsul(vault: Vault, consul: TestConsul, setup: LeasingRole): Promise<LeasingPath> {
  const { mount = 'consul', role, ttl = '1h', maxTtl = '24h' } = setup
  if (await enable(vault, mount, 'consul')) {
    await vault.api('POST', `${mount}/config/access`, { address: consul.address, token: consul.token })
  }
  const policies = ['global-management']
  await vault.api('POST', `${mount}/roles/${role}`, { consul_policies: policies, ttl, max_ttl: maxTtl })
  return { path: `${mount}/creds/${role}` }
}

/** A role of the engine `ldap`: each read makes a person in the directory, and what ends the lease deletes it. */
export async function setupLdap(vault: Vault, ldap: LdapServer, setup: LeasingRole): Promise<LeasingPath> {
  const { mount = 'ldap', role, ttl = '1h', maxTtl = '24h' } = setup
  const { address: url, admin, people: userdn } = ldap
  if (await enable(vault, mount, 'ldap')) {
    await vault.api('POST', `${mount}/config`, { url, binddn: admin.dn, bindpass: admin.password, userdn })
  }
  const dn = `dn: uid={{.Username}},${userdn}`
  const names = ['uid', 'cn', 'sn'].map((name) => `${name}: {{.Username}}`)
  const add = ['changetype: add', 'objectClass: inetOrgPerson', ...names, 'userPassword: {{.Password}}']
  await vault.api('POST', `${mount}/role/${role}`, {
    creation_ldif: [dn, ...add].join('\n'),
    deletion_ldif: `${dn}\nchangetype: delete`,
    default_ttl: ttl,
    max_ttl: maxTtl,
  })
  return { path: `${mount}/creds/${role}` }
}

/**
 * A role of the engine `kubernetes`: each request makes a service account with a token, which may list the pods of `namespace`; what ends
 * the lease deletes them. Such a lease cannot be renewed, and Kubernetes allows none below ten minutes.
 */
export async function setupServiceAccounts(
  vault: Vault,
  cluster: TestKubernetes,
  { namespace, ...setup }: LeasingRole & { readonly namespace: string },
): Promise<LeasingPath> {
  const { mount = 'kubernetes', role, ttl = '10m', maxTtl = '24h' } = setup
  if (await enable(vault, mount, 'kubernetes')) {
    await vault.api('POST', `${mount}/config`, {
      kubernetes_host: cluster.url,
      kubernetes_ca_cert: cluster.caPem,
      service_account_jwt: cluster.token,
      disable_local_ca_jwt: true,
    })
  }
  await vault.api('POST', `${mount}/roles/${role}`, {
    allowed_kubernetes_namespaces: [namespace],
    generated_role_rules: JSON.stringify({ rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }] }),
    token_default_ttl: ttl,
    token_max_ttl: maxTtl,
  })
  return { path: `${mount}/creds/${role}`, body: { kubernetes_namespace: namespace } }
}

/** A mount of ssh with a role of one-time passwords. Their leases cannot be renewed. */
export async function setupOneTimePasswords(vault: Vault, setup: LeasingRole): Promise<LeasingPath> {
  const { mount = 'ssh-otp', role } = setup
  await enable(vault, mount, 'ssh', setup)
  await vault.api('POST', `${mount}/roles/${role}`, { key_type: 'otp', default_user: 'app', cidr_list: '127.0.0.0/8' })
  return { path: `${mount}/creds/${role}`, body: { ip: '127.0.0.1' } }
}

/** A role of a mount of pki, made by `setupPki`, whose certificates are leased; what ends the lease revokes the certificate. */
export async function setupLeasedCertificates(vault: Vault, setup: LeasingRole): Promise<LeasingPath> {
  const { mount = 'pki', role, ttl = '1h', maxTtl = '24h' } = setup
  const settings = { allow_any_name: true, key_type: 'ec', key_bits: 256, generate_lease: true }
  await vault.api('POST', `${mount}/roles/${role}`, { ...settings, ttl, max_ttl: maxTtl })
  return { path: `${mount}/issue/${role}`, body: { common_name: 'web.example.com' } }
}

/** False where the mount was there already. */
async function enable(vault: Vault, mount: string, type: string, { ttl, maxTtl }: Partial<LeasingRole> = {}) {
  const { data } = await vault.api('GET', 'sys/mounts')
  if (data && Object.hasOwn(data, `${mount}/`)) return false
  await vault.api('POST', `sys/mounts/${mount}`, { type, config: { default_lease_ttl: ttl, max_lease_ttl: maxTtl } })
  return true
}

/** What was handed out once. */
export interface TestLease {
  readonly id: string
  readonly ttlSeconds: number
  readonly isRenewable: boolean
  readonly data: Readonly<Record<string, unknown>>
  /** Gives the seconds that it has from now. Throws where Vault refuses. */
  renew(increment?: string): Promise<number>
  /** Resolves when what it stood for is gone as well. */
  revoke(): Promise<void>
  /** The seconds that Vault gives it now; 0 when there is no such lease any more. */
  secondsLeft(): Promise<number>
}

/** Takes a lease, by default as root. */
export async function takeLease(vault: Vault, { path, body }: LeasingPath, token?: string): Promise<TestLease> {
  const options = token === undefined ? {} : { token }
  const answer = await vault.api(body ? 'POST' : 'GET', path, body, options)
  const { lease_id: id, lease_duration: ttlSeconds, renewable: isRenewable, data } = Leased.parse(answer)
  return {
    id,
    ttlSeconds,
    isRenewable,
    data,
    renew: async (increment) => {
      const renewed = await vault.api('POST', 'sys/leases/renew', { lease_id: id, increment }, options)
      return Renewed.parse(renewed).lease_duration
    },
    revoke: async () => {
      await vault.api('POST', 'sys/leases/revoke', { lease_id: id, sync: true })
    },
    secondsLeft: async () => {
      try {
        return Left.parse((await vault.api('POST', 'sys/leases/lookup', { lease_id: id })).data).ttl
      } catch (error) {
        if (error instanceof Error && error.message.includes('invalid lease')) return 0
        throw error
      }
    },
  }
}

const Renewed = z.object({ lease_duration: z.number() })
const Leased = Renewed.extend({
  lease_id: z.string().min(1),
  renewable: z.boolean(),
  data: z.record(z.string(), z.unknown()),
})
const Left = z.object({ ttl: z.number() })

/** The user name and password among what an engine gave. */
export const credentialsIn = (data: TestLease['data']): Credentials =>
  z.object({ username: z.string(), password: z.string() }).parse(data)
