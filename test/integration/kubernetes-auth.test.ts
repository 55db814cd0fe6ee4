import assert from 'node:assert/strict'
import { sign } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { rename } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import * as z from 'zod'
import { createSource } from '../sources/contract.ts'
import { commandLine } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { CONTROL_PLANE, startKubernetes, type TestKubernetes, VAULT_AUDIENCE } from '../support/kubernetes.ts'
import { startProgram } from '../support/program.ts'
import { until } from '../support/until.ts'
import { signOnly, startVault, type TestVault } from '../support/vault.ts'
import { type PodAuth, setupPodLogin } from '../support/vault-kubernetes.ts'
import { failure, forever, openVault } from '../vault/support.ts'

const PAGE = readFileSync(new URL('../../docs/vault-policies.md', import.meta.url), 'utf8')

/** The block that follows `<!-- TITLE -->`. */
function blockOf(title: string): string {
  const [, text] = new RegExp(`<!-- ${title} -->\\n\`\`\`\\w+\\n([^\`]+)\`\`\``).exec(PAGE) ?? []
  assert.ok(text, `docs/vault-policies.md has no block ${title}`)
  return text
}

const RBAC = '/apis/rbac.authorization.k8s.io/v1'
/** The address of the API server on the page. */
const IN_CLUSTER = 'https://kubernetes.default.svc'

interface Deletion {
  readonly token: string
  readonly role: string
  /** What is deleted. */
  readonly path: string
}

const KINDS: readonly PodAuth[] = ['kubernetes', 'jwt']

/** Longer than the API server keeps what it knows of a token or a right: 10 s. */
const PATIENCE = { timeoutMs: 60_000, everyMs: 500 }

const skip = await skipReason('vault', 'vault-plugin-auth-kubernetes', ...CONTROL_PLANE)

describe('logging in to a real Vault from a pod, as docs/vault-policies.md sets it up', { skip }, () => {
  let cluster: TestKubernetes
  let server: TestVault
  const folder = mkdtempSync(join(tmpdir(), 'certferry-pod-'))

  before(async () => {
    cluster = await startKubernetes()
    server = await startVault({ authPlugins: ['kubernetes'] })
    await server.setupPki()
    await server.api('POST', 'sys/policies/acl/certferry', { policy: signOnly('pki', 'web') })
    for (const namespace of ['shop', 'vault', 'other']) await cluster.createNamespace(namespace)
    await cluster.createServiceAccount('web', 'shop')
    await cluster.createServiceAccount('api', 'shop')
    await cluster.createServiceAccount('web', 'other')
    for (const kind of KINDS) {
      await apply(blockOf(`apply: ${kind}`))
      await until(`Vault takes the setup of ${kind}`, () => vaultCommands(blockOf(`vault: ${kind}`)).then(() => true))
    }
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    await cluster?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  })

  const apply = (text: string) => cluster.kubectl(['apply', '-f', '-'], text)

  /** What the vault CLI does with its commands, for this cluster. */
  async function vaultCommands(text: string): Promise<void> {
    const files: Readonly<Record<string, string>> = {
      '@ca.crt': cluster.caPem,
      '@reviewer.jwt': await cluster.createToken('vault', 'vault'),
    }
    for (const line of text.trim().split('\n')) {
      const [, enabled, path = '', fields = ''] =
        /^\$ vault (?:auth enable (\w+)|write (\S+) (.+))$/.exec(line) ?? assert.fail(`no command: ${line}`)
      if (enabled !== undefined) await enable(enabled)
      else {
        const pairs = fields.split(' ').map((field) => field.split(/=(.*)/, 2))
        const values = pairs.map(([name, value = '']) => [name, files[value] ?? value.replace(IN_CLUSTER, cluster.url)])
        await server.api('POST', path, Object.fromEntries(values))
      }
    }
  }
  const enable = (type: string) =>
    server.api('POST', `sys/auth/${type}`, { type }).catch((error: Error) => {
      if (!error.message.includes('already in use')) throw error
    })

  let count = 0
  const save = (text: string) => {
    count += 1
    const file = join(folder, `file-${count}`)
    writeFileSync(file, text, { mode: 0o600 })
    return file
  }

  function open(kind: PodAuth, token: string, more: object = {}) {
    const tokenFile = save(token)
    const { vault, told } = openVault(server.address, { auth: { kind, role: 'web', tokenFile, ...more } })
    const source = createSource({ kind: 'vault-pki', role: 'web', commonName: 'a.example.com' }, { vault: () => vault })
    return {
      told,
      fetch: () => source.fetch(forever),
      [Symbol.asyncDispose]: () => vault[Symbol.asyncDispose](),
    }
  }
  /** Of one login and one certificate. */
  async function outcome(kind: PodAuth, token: string, more: object = {}): Promise<string> {
    await using pod = open(kind, token, more)
    return await pod.fetch().then(
      () => 'issued',
      (error: unknown) => String(error),
    )
  }
  const web = () => cluster.createToken('web', 'shop', VAULT_AUDIENCE)

  /** The token with other claims, signed by the API server's key, or still with the old signature. */
  function altered(token: string, claims: object, resign: boolean): string {
    const [header = '', payload = '', signature = ''] = token.split('.')
    const old: object = JSON.parse(Buffer.from(payload, 'base64url').toString())
    const body = `${header}.${Buffer.from(JSON.stringify({ ...old, ...claims })).toString('base64url')}`
    return `${body}.${resign ? signed(body) : signature}`
  }
  const signed = (text: string) =>
    sign('sha256', Buffer.from(text), readFileSync(cluster.signingKeyFile)).toString('base64url')
  const HOUR_AGO = { iat: now() - 7200, nbf: now() - 7200, exp: now() - 3600 }

  for (const kind of KINDS) {
    test(`${kind} issues, with the token of the service account that the role binds and with no other right`, async () => {
      await using pod = open(kind, `${await web()}\n`)
      assert.equal((await pod.fetch()).leaf.subject, 'CN=a.example.com')
      assert.deepEqual(
        pod.told.onToken.map(({ how, renewable }) => [how, renewable]),
        [['login', true]],
      )
    })

    const refused: [title: string, token: () => Promise<string>, more: object, told: Record<PodAuth, RegExp>][] = [
      [
        'another service account',
        () => cluster.createToken('api', 'shop', VAULT_AUDIENCE),
        {},
        {
          kubernetes: /\(403\): service account name not authorized; .*shop:api/,
          jwt: /\(400\): error validating token: invalid subject \(sub\) claim; .*shop:api/,
        },
      ],
      [
        'the same service account of another namespace',
        () => cluster.createToken('web', 'other', VAULT_AUDIENCE),
        {},
        { kubernetes: /\(403\): namespace not authorized; .*other:web/, jwt: /invalid subject.*other:web/ },
      ],
      [
        'a token for the API server',
        () => cluster.createToken('web', 'shop'),
        {},
        {
          kubernetes: /\(403\): invalid audience.*for audience https:\/\/127/,
          jwt: /\(400\): error validating token: invalid audience.*for audience https:\/\/127/,
        },
      ],
      [
        'an expired token',
        async () => altered(await web(), HOUR_AGO, true),
        {},
        {
          kubernetes: new RegExp(`token is expired; .*shop:web.* valid until ${isoOf(HOUR_AGO.exp)}$`),
          jwt: new RegExp(`token is expired.*shop:web.* valid until ${isoOf(HOUR_AGO.exp)}$`),
        },
      ],
      [
        'a forged token',
        async () =>
          altered(
            await cluster.createToken('api', 'shop', VAULT_AUDIENCE),
            { sub: 'system:serviceaccount:shop:web' },
            false,
          ),
        {},
        {
          kubernetes: /\(403\): (?:permission denied|service account name not authorized); /,
          jwt: /verifying token signature/,
        },
      ],
      [
        'a role that is not there',
        web,
        { role: 'nosuch' },
        { kubernetes: /\(400\): invalid role name "nosuch"; /, jwt: /\(400\): role "nosuch" could not be found; / },
      ],
      ['a mount that is not there', web, { mount: 'nosuch' }, { kubernetes: /auth\/nosuch/, jwt: /auth\/nosuch/ }],
    ]
    for (const [title, token, more, told] of refused)
      test(`${kind} with ${title} is a failed login that tells why, and never the token`, async () => {
        const jwt = await token()
        await using pod = open(kind, jwt, more)
        const { code, message } = await failure(pod.fetch())
        assert.equal(code, 'AUTH_FAILED')
        assert.match(message, told[kind])
        for (const part of jwt.split('.')) assert.ok(!message.includes(part), message)
      })

    test(`V15 ${kind} logs in at once with the token that the kubelet has put in place of an expired one`, async () => {
      const volume = mkdtempSync(join(folder, 'projected-'))
      const tokenFile = join(volume, 'token')
      const put = async (token: string) => {
        // As the kubelet does: a link to a link that it replaces.
        symlinkSync(save(token), join(volume, 'next'))
        await rename(join(volume, 'next'), join(volume, '..data'))
      }
      await put(altered(await web(), HOUR_AGO, true))
      symlinkSync('..data', tokenFile)
      await using pod = open(kind, '', { tokenFile })
      assert.equal((await failure(pod.fetch())).code, 'AUTH_FAILED')
      await put(await web())
      await pod.fetch()
      // And whenever it has to log in again.
      await put(await web())
      await server.api('POST', `sys/leases/revoke-prefix/auth/${kind}/login`)
      await pod.fetch()
      assert.deepEqual(
        pod.told.onToken.map(({ how }) => how),
        ['login', 'login'],
      )
    })

    test(`doctor tells as whom it logs in by ${kind}, and why it cannot`, async () => {
      const good = await doctor(kind, await web())
      const name = { kubernetes: 'kubernetes-shop-web', jwt: 'jwt-system:serviceaccount:shop:web' }[kind]
      assert.ok(good.includes(`✓ login works as ${name}: policies certferry, default; token lives `), good)
      const jwt = await cluster.createToken('api', 'shop', VAULT_AUDIENCE)
      const bad = await doctor(kind, jwt)
      assert.match(bad, /✗ Vault refused POST auth\/\w+\/login .* holds a JWT of system:serviceaccount:shop:api/)
      assert.match(bad, /→ Vault refused the login; .*service account, namespace, audience/)
      assert.ok(!jwt.split('.').some((part) => bad.includes(part)), bad)
      const missing = await doctor(kind, jwt, { tokenFile: join(folder, 'missing') })
      assert.match(missing, /✗ cannot read \S+\/missing \(ENOENT\)\n +→ .*serviceAccountToken/)
    })
  }

  async function doctor(kind: PodAuth, token: string, more: object = {}): Promise<string> {
    const config = {
      vault: { address: server.address, auth: { kind, role: 'web', tokenFile: save(token), ...more } },
      certificates: [
        {
          name: 'web',
          source: { kind: 'vault-pki', role: 'web', commonName: 'a.example.com' },
          outputs: [{ kind: 'pem', directory: join(folder, 'tls') }],
        },
      ],
    }
    const argv = [process.execPath, ...commandLine(undefined, 'doctor', '-c', save(JSON.stringify(config)))]
    const program = startProgram(argv, { PATH: process.env.PATH ?? '' })
    await program.ended
    return program.output()
  }

  test('jwt takes the default_role of the mount', async () => {
    await server.api('POST', 'auth/jwt/config', {
      oidc_discovery_url: cluster.url,
      oidc_discovery_ca_pem: cluster.caPem,
      default_role: 'web',
    })
    await using pod = open('jwt', await web(), { role: undefined })
    await pod.fetch()
  })

  const deletions: [what: string, prepare: () => Promise<Deletion>][] = [
    [
      'service account',
      async () => {
        await cluster.createServiceAccount('gone', 'shop')
        const login = { role: 'gone', serviceAccount: 'gone', namespace: 'shop', policy: signOnly('pki', 'web') }
        for (const kind of KINDS) await setupPodLogin({ vault: server, cluster, kind, ...login })
        const token = await cluster.createToken('gone', 'shop', VAULT_AUDIENCE)
        return { token, role: 'gone', path: '/api/v1/namespaces/shop/serviceaccounts/gone' }
      },
    ],
    [
      'pod',
      async () => {
        const spec = { serviceAccountName: 'web', containers: [{ name: 'app', image: 'app' }] }
        const path = '/api/v1/namespaces/shop/pods'
        const { metadata } = Created.parse(await cluster.api('POST', path, { metadata: { name: 'web-0' }, spec }))
        const token = await cluster.createToken('web', 'shop', VAULT_AUDIENCE, { pod: metadata })
        return { token, role: 'web', path: `${path}/web-0?gracePeriodSeconds=0` }
      },
    ],
  ]
  for (const [what, prepare] of deletions)
    test(`kubernetes notices within seconds that the ${what} is gone; jwt does when the token ends`, async () => {
      const { token, role, path } = await prepare()
      for (const kind of KINDS) assert.equal(await outcome(kind, token, { role }), 'issued')
      await cluster.api('DELETE', path)
      await until('it is refused', async () => (await outcome('kubernetes', token, { role })) !== 'issued', PATIENCE)
      assert.equal(await outcome('jwt', token, { role }), 'issued')
    })

  describe('the rights of Vault in the cluster', () => {
    const path = `${RBAC}/clusterroles/vault-tokenreview`
    const rule = (changes: object) => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'vault-tokenreview' },
      rules: [{ apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'], verbs: ['create'], ...changes }],
    })
    const less: [title: string, changes: object][] = [
      ['to read them only', { verbs: ['get', 'list', 'watch', 'update', 'patch', 'delete'] }],
      ['to ask for access reviews', { apiGroups: ['authorization.k8s.io'], resources: ['subjectaccessreviews'] }],
      ['to ask in a group of that name alone', { apiGroups: [''] }],
    ]
    for (const [title, changes] of less)
      test(`without create of tokenreviews, but ${title}, no login works; and it does once that is back`, async () => {
        await cluster.api('PUT', path, rule(changes))
        const told = await until(
          'a login is refused',
          async () => {
            const text = await outcome('kubernetes', await web())
            return text !== 'issued' && text
          },
          PATIENCE,
        )
        assert.match(told, /\(403\): permission denied; .* holds a JWT of system:serviceaccount:shop:web/)
        await cluster.api('PUT', path, rule({}))
        await until('a login works', async () => (await outcome('kubernetes', await web())) === 'issued', PATIENCE)
      })

    test('are that one, and nothing else', async () => {
      const token = await cluster.createToken('vault', 'vault')
      const may = async (method: 'GET' | 'POST', path: string, body?: object) =>
        (await cluster.send(method, path, body, { token })).status
      const tokenReview = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token: await web() } }
      assert.equal(await may('POST', '/apis/authentication.k8s.io/v1/tokenreviews', tokenReview), 201)
      const accessReview = {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: { user: 'x', resourceAttributes: { resource: 'pods', verb: 'get' } },
      }
      // system:auth-delegator would allow this one.
      assert.equal(await may('POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', accessReview), 403)
      for (const path of [
        '/api/v1/secrets',
        '/api/v1/namespaces/shop/serviceaccounts',
        '/api/v1/pods',
        `${RBAC}/clusterroles`,
      ])
        assert.equal(await may('GET', path), 403, path)
    })

    test('are none at all for jwt, but that everybody may read the keys', async () => {
      const binding = `${RBAC}/clusterrolebindings/issuer-discovery-for-all`
      const config = { oidc_discovery_url: cluster.url, oidc_discovery_ca_pem: cluster.caPem }
      await cluster.api('DELETE', binding)
      const told = await until(
        'Vault cannot read them',
        () =>
          server.api('POST', 'auth/jwt/config', config).then(
            () => undefined,
            (error: Error) => error.message,
          ),
        PATIENCE,
      )
      assert.match(told, /error checking oidc discovery URL/)
      await apply(blockOf('apply: jwt'))
      await until('Vault can', () => server.api('POST', 'auth/jwt/config', config).then(() => true), PATIENCE)
    })
  })
})

const Created = z.object({ metadata: z.object({ name: z.string(), uid: z.string() }) })

/** Seconds since 1970. */
function now(): number {
  return Math.floor(Date.now() / 1000)
}

function isoOf(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replaceAll('.', '\\.')
}
