import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import * as z from 'zod'
import { parseCertificates } from '../../../src/core/bundle.ts'
import { skipReason } from '../../support/components.ts'
import { answer } from '../../support/fault-proxy.ts'
import {
  askThrice,
  assertNoFailure,
  BY_ITSELF,
  bundleOnce,
  createRig,
  DUE_SOON,
  type FaultPlan,
  isWell,
  type Rig,
  type RigOptions,
  rotateWell,
  servedBy,
  survive,
} from '../../support/fault-rig.ts'
import { createStage, type Stage } from '../../support/stage.ts'
import { until } from '../../support/until.ts'
import { signOnly, startVault, WEB_ROLE } from '../../support/vault.ts'
import { addIntermediate, defaultIssuer, setDefaultIssuer } from '../../support/vault-issuers.ts'

const skip = await skipReason('vault', 'nginx')
const shared = skip ? undefined : await startVault()
after(() => shared?.[Symbol.asyncDispose]())
await shared?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const vaultOf = () => shared ?? assert.fail('no Vault')

const changeRole = ({ stage }: Rig, settings: object) =>
  vaultOf().api('POST', `${stage.mount}/roles/${stage.role}`, { ...WEB_ROLE, ...settings })
/** A fault that is a setting of the role. */
const roleWith = (settings: object) => ({
  inject: async (rig: Rig) => void (await changeRole(rig, settings)),
  repair: async (rig: Rig) => void (await changeRole(rig, {})),
})

const PATHS = { login: '/v1/auth/approle/login', renew: '/v1/auth/token/renew-self', sign: '/v1/pki/sign/' }
const count = ({ proxy }: Rig, path: keyof typeof PATHS) =>
  proxy.requests.filter(({ url }) => url.startsWith(PATHS[path])).length

/** An operator revokes the token that certferry holds. */
async function revokeToken({ proxy }: Rig): Promise<void> {
  const token = proxy.requests.findLast(({ headers }) => headers['x-vault-token'])?.headers['x-vault-token']
  await vaultOf().api('POST', 'auth/token/revoke', { token })
}

const leafOf = (rig: Rig) => {
  const [leaf] = parseCertificates(readFileSync(join(rig.directory, 'tls.crt'), 'utf8'))
  return leaf ?? assert.fail('no certificate')
}

/** A mount of its own, for what would trouble all others in `pki`. */
const ownMount = async (name: string) => {
  await vaultOf().setupPki({ mount: name })
  return { stage: { mount: name } }
}

type Case = FaultPlan & { readonly with?: () => Partial<RigOptions> | Promise<Partial<RigOptions>> }

const SECRETS: Readonly<Record<string, Case>> = {
  'V14 a secret_id that is used up': {
    reason: 'auth_permanent',
    inject: revokeToken,
    trigger: askThrice,
    repair: deliverSecretId,
    with: () => ({ stage: { approle: { secret_id_num_uses: 1 } } }),
  },
  'V14 a wrapping token that somebody else used': {
    reason: 'wrap_reused',
    inject: async (rig) => {
      const wrapping = await rig.stage.approle.wrappedSecretId()
      await vaultOf().api('POST', 'sys/wrapping/unwrap', { token: wrapping })
      await rig.stage.place('secret-id', wrapping)
      await revokeToken(rig)
    },
    trigger: askThrice,
    meanwhile: {
      also: async ({ rig: { certferry } }) => {
        assert.ok(certferry.log('security.wrap-reused').every(({ level }) => level === 'error'))
        assert.ok(((await certferry.metric('certferry_wrap_reused_total')) ?? 0) > 0, 'told as a security event')
      },
    },
    repair: async ({ stage }) => void (await stage.place('secret-id', await stage.approle.wrappedSecretId())),
    with: () => ({
      prepare: async (stage) => void (await stage.place('secret-id', await stage.approle.wrappedSecretId())),
      stage: { authOptions: { secretIdWrapped: true } },
    }),
  },
  'V15 a file of the secret_id that is empty': {
    reason: 'auth_source',
    inject: async (rig) => {
      await rig.stage.place('secret-id', '\n')
      await revokeToken(rig)
    },
    repair: deliverSecretId,
  },
  'V15 a file of the secret_id that is gone': {
    reason: 'auth_source',
    inject: async (rig) => {
      rmSync(join(rig.stage.folder, 'secret-id'))
      await revokeToken(rig)
    },
    repair: deliverSecretId,
  },
}

async function deliverSecretId({ stage }: Rig): Promise<void> {
  await stage.place('secret-id', await stage.approle.secretId())
}

const SET_UP: Readonly<Record<string, Case>> = {
  'V4 a rate limit that is used up': {
    reason: 'rate_limited',
    inject: async ({ stage }) => {
      const path = `${stage.mount}/sign/${stage.role}`
      await vaultOf().api('POST', 'sys/quotas/config', { enable_rate_limit_response_headers: true })
      await vaultOf().api('POST', `sys/quotas/rate-limit/${stage.role}`, { path, rate: 1, interval: '1h' })
      // The one request that is allowed in this hour.
      await assert.rejects(vaultOf().api('POST', path, {}), /: 400 /)
    },
    trigger: askThrice,
    meanwhile: {
      also: ({ rig }) => {
        const [line] = rig.certferry.log('rotation.failed')
        const waitMs = Date.parse(String(line?.next)) - Date.parse(String(line?.time))
        assert.ok(waitMs > 5_000, `Retry-After is honoured, as far as the certificate can wait: ${waitMs} ms`)
      },
    },
    repair: async ({ stage }) => void (await vaultOf().api('DELETE', `sys/quotas/rate-limit/${stage.role}`)),
  },
  'V12 and V16 a token that is revoked again and again': {
    reason: 'permission_denied',
    inject: (rig) => {
      rig.proxy.onRequest = async ({ url }) => {
        if (url.startsWith(PATHS.sign)) await revokeToken(rig)
        return undefined
      }
    },
    trigger: askThrice,
    meanwhile: {
      also: ({ rig }) => {
        const passes = rig.certferry.log('rotation.failed').length
        assert.ok(count(rig, 'sign') <= 1 + 2 * (passes + 1), 'one more try in each pass')
        assert.ok(count(rig, 'login') <= 1 + passes + 1, 'one new login in each pass')
      },
    },
    repair: ({ proxy }) => {
      proxy.onRequest = () => undefined
    },
  },
  'V16 a policy that is removed': {
    reason: 'permission_denied',
    inject: async ({ stage }) => void (await vaultOf().api('DELETE', `sys/policies/acl/${await policyOf(stage)}`)),
    trigger: askThrice,
    repair: restorePolicy,
  },
  'V17 a role that is deleted': {
    reason: 'role_missing',
    inject: async ({ stage }) => void (await vaultOf().api('DELETE', `${stage.mount}/roles/${stage.role}`)),
    trigger: askThrice,
    repair: async (rig) => void (await changeRole(rig, {})),
  },
  'V17 a mount that is moved': {
    reason: 'mount_missing',
    inject: () => move('moving', 'moved'),
    trigger: askThrice,
    repair: () => move('moved', 'moving'),
    with: () => ownMount('moving'),
  },
  'V17 a mount that is disabled': {
    reason: 'mount_missing',
    inject: async () => void (await vaultOf().api('DELETE', 'sys/mounts/disabled')),
    trigger: askThrice,
    repair: async (rig) => {
      await vaultOf().api('DELETE', 'sys/mounts/disabled-root')
      await vaultOf().setupPki({ mount: 'disabled' })
      await changeRole(rig, {})
    },
    // The audit log tells of both lives of the mount.
    with: () => ownMount('disabled'),
  },
  'V17 a verb that the path does not know (405)': {
    reason: 'mount_missing',
    inject: ({ proxy }) => {
      proxy.onRequest = ({ url }) =>
        url.startsWith(PATHS.sign)
          ? answer(405, { errors: ['1 error occurred:\n\t* unsupported operation\n\n'] })
          : undefined
    },
    trigger: askThrice,
    repair: ({ proxy }) => {
      proxy.onRequest = () => undefined
    },
  },
  'V18 a name that the role no longer allows': {
    reason: 'request_rejected',
    ...roleWith({ allowed_domains: ['example.org'] }),
    trigger: askThrice,
    meanwhile: {
      also: ({ held }) => assert.match(held.lastError?.message ?? '', /web\.example\.com not allowed by this role$/),
    },
  },
  'V24 a certificate that is not for servers': {
    reason: 'policy_reject',
    ...roleWith({ server_flag: false, client_flag: true }),
    ...BY_ITSELF,
    with: () => ({ web: DUE_SOON }),
  },
  'V24 a certificate with other names than asked for': {
    reason: 'names_mismatch',
    inject: async (rig) => {
      await changeRole(rig, { use_csr_sans: false })
      answerWith(rig, (body) =>
        vaultOf().api('POST', signPath(rig), { ...body, alt_names: 'web.example.com,admin.example.com' }),
      )
    },
    repair: async (rig) => {
      rig.proxy.onRequest = () => undefined
      await changeRole(rig, {})
    },
    ...BY_ITSELF,
    with: () => ({ web: DUE_SOON }),
  },
  'V24 a certificate that is a CA': {
    reason: 'policy_reject',
    inject: (rig) =>
      answerWith(rig, (body) =>
        vaultOf().api('POST', 'pki-root/root/sign-intermediate', { ...body, use_csr_values: true, ttl: '100s' }),
      ),
    repair: ({ proxy }) => {
      proxy.onRequest = () => undefined
    },
    ...BY_ITSELF,
    // Those that were refused are not of the role.
    afterwards: { issued: [2, 3] },
    with: () => ({ web: DUE_SOON }),
  },
  'V26 a life below check.minTtl': {
    reason: 'ttl_too_short',
    ...roleWith({ max_ttl: '8s' }),
    ...BY_ITSELF,
    meanwhile: {
      also: ({ rig }) =>
        assert.equal(
          rig.certferry.log('vault.warning').filter(({ msg, ...line }) => /maxTTL/.test(JSON.stringify(line))).length,
          1,
          'warned once',
        ),
    },
    with: () => ({ web: DUE_SOON }),
  },
  'V27 a CA that ends before the certificate would': {
    reason: 'ca_expiring',
    inject: async () =>
      setDefaultIssuer(vaultOf(), 'ending', await addIntermediate(vaultOf(), 'ending', { ttl: '60s' })),
    repair: async () => setDefaultIssuer(vaultOf(), 'ending', await firstIssuer),
    meanwhile: {
      also: ({ held }) => assert.equal(held.failures, 1, 'DEGRADED with the first failure: only a person can help'),
    },
    with: async () => {
      const options = await ownMount('ending')
      firstIssuer = defaultIssuer(vaultOf(), 'ending')
      await firstIssuer
      return options
    },
  },
}
let firstIssuer: Promise<string>

const signPath = ({ stage }: Rig) => `${stage.mount}/sign/${stage.role}`
const Body = z.looseObject({})

/** Whoever sits in between asks Vault for something else than certferry did. */
function answerWith({ proxy }: Rig, ask: (body: object) => Promise<unknown>): void {
  proxy.onRequest = async ({ url, body }) =>
    url.startsWith(PATHS.sign) ? answer(200, await ask(Body.parse(JSON.parse(body)))) : undefined
}

const policyOf = async (stage: Rig['stage']) => {
  const { data } = await vaultOf().api('GET', `auth/approle/role/${stage.approle.name}`)
  return z.object({ token_policies: z.tuple([z.string()]) }).parse(data).token_policies[0]
}

async function restorePolicy({ stage }: Rig): Promise<void> {
  await vaultOf().api('POST', `sys/policies/acl/${await policyOf(stage)}`, {
    policy: signOnly(stage.mount, stage.role),
  })
}

/** Vault moves in the background. */
async function move(from: string, to: string): Promise<void> {
  const { data } = await vaultOf().api('POST', 'sys/remount', { from, to })
  await until(`${from} is ${to}`, async () => {
    const { data: state } = await vaultOf().api('GET', `sys/remount/status/${data?.migration_id}`)
    return JSON.stringify(state).includes('"success"')
  })
}

describe('an operator of Vault', { skip, concurrency: 2 }, () => {
  describe('who changes the set-up', { concurrency: 4 }, () => {
    for (const [name, { with: options = () => ({}), ...plan }] of Object.entries({ ...SET_UP, ...SECRETS })) {
      test(`${name} is told, keeps the set in service, and does not outlive its cause`, async () => {
        await using rig = await createRig({ vault: vaultOf(), program, ...(await options()) })
        await survive(rig, plan)
      })
    }
  })

  describe('who deals with tokens', { concurrency: 4 }, () => {
    test('V12 a token revoked between login and issue costs one new login and one more try, and no failure', async () => {
      await using rig = await createRig({ vault: vaultOf(), program })
      const before = { sign: count(rig, 'sign'), login: count(rig, 'login') }
      let revoked = false
      rig.proxy.onRequest = async ({ url }) => {
        if (url.startsWith(PATHS.sign) && !revoked) {
          revoked = true
          await revokeToken(rig)
        }
        return undefined
      }
      await rotateWell(rig)
      assertNoFailure(rig)
      assert.equal(count(rig, 'sign'), before.sign + 2)
      assert.equal(count(rig, 'login'), before.login + 1)
      assert.equal(await rig.stage.issued(), 2)
    })

    /** Tokens of six seconds; `renewals` is how often each may be asked to be renewed. */
    const TOKENS = {
      'V13 a token that may not renew itself': { settings: { token_no_default_policy: true }, renewals: 1 },
      'V13 a token that cannot be renewed': { settings: { token_type: 'batch' }, renewals: 0 },
      'V13 a token that reaches its max TTL': { settings: { token_max_ttl: '9s' }, renewals: 1 },
    } as const
    for (const [name, { settings, renewals }] of Object.entries(TOKENS)) {
      test(`${name} is replaced before it ends, without a storm of requests`, async () => {
        await using rig = await createRig({
          vault: vaultOf(),
          program,
          web: { served: false },
          stage: { approle: { token_ttl: '6s', ...settings } },
        })
        const since = performance.now()
        await until('it has logged in four times', () => count(rig, 'login') >= 4, { timeoutMs: 60_000 })
        const logins = count(rig, 'login')
        const elapsed = performance.now() - since
        // At two thirds of six seconds, or later.
        assert.ok(logins <= 2 + elapsed / 3_500, `${logins} logins in ${Math.round(elapsed)} ms`)
        assert.ok(count(rig, 'renew') <= renewals * logins, `${count(rig, 'renew')} renewals with ${logins} logins`)
        if (renewals > 0) assert.ok(count(rig, 'renew') > 0, 'it was tried')
        rig.proxy.requests.length = 0
        await rotateWell(rig)
        assertNoFailure(rig)
        assert.equal(count(rig, 'sign'), 1, 'the token in hand was good')
      })
    }

    test('V15 a token file that somebody rotates is read anew once Vault refuses the old token', async () => {
      const vault = vaultOf()
      await using rig = await createRig({
        vault,
        program,
        stage: { vaultOptions: (folder) => ({ auth: { kind: 'token', tokenFile: join(folder, 'token') } }) },
        prepare: async (stage) => {
          await stage.place('token', await vault.createToken({ policy: signOnly(stage.mount, stage.role) }))
        },
      })
      const { stage } = rig
      await stage.place('token', await vault.createToken({ policy: signOnly(stage.mount, stage.role) }))
      await revokeToken(rig)
      await rotateWell(rig)
      assertNoFailure(rig)
    })
  })

  describe('who deals with certificates', { concurrency: 4 }, () => {
    test('V19 a certificate that is revoked is replaced by "rotate --reason compromise", and never comes back, even when the target keeps it', async () => {
      const vault = vaultOf()
      const web = { verify: { deadline: '2s' } }
      await using rig = await createRig({ vault, program, web })
      const master = rig.nginx?.pid ?? assert.fail('no nginx')
      await survive(rig, {
        reason: 'reload_not_effective',
        inject: async ({ certferry }) => {
          const { serial } = await certferry.certificate('web', 'is in service', isWell)
          await vault.api('POST', 'pki/revoke', { serial_number: serial?.match(/../g)?.join(':') })
          // The target is deaf: any other rotation would go back to the old set now.
          process.kill(master, 'SIGSTOP')
        },
        trigger: async ({ certferry }) =>
          void (await certferry.control.rotate({ certificates: ['web'], reason: 'compromised' })),
        meanwhile: {
          files: 'new',
          also: ({ rig: { certferry } }) => assert.deepEqual(certferry.log('rotation.rolled-back'), []),
        },
        repair: () => void process.kill(master, 'SIGCONT'),
      })
    })

    test('V20 another default issuer below the same root is accepted, and its chain is served', async () => {
      await using rig = await createRig({ vault: vaultOf(), program, ...(await ownMount('renewed')) })
      const before = leafOf(rig).issuer
      await setDefaultIssuer(vaultOf(), 'renewed', await addIntermediate(vaultOf(), 'renewed'))
      const { fingerprint } = await rotateWell(rig)
      assertNoFailure(rig)
      assert.notEqual(leafOf(rig).issuer, before)
      const chain = parseCertificates(readFileSync(join(rig.directory, 'tls.crt'), 'utf8'))
      assert.ok(chain[1] && leafOf(rig).checkIssued(chain[1]), 'the new intermediate goes with it')
      assert.equal(await servedBy(rig.stage), fingerprint)
    })

    test('V20 another default issuer below another root is refused where check.trustFile names the roots', async () => {
      const vault = vaultOf()
      const options = await ownMount('anchored')
      await vault.setupPki({ mount: 'elsewhere' })
      const first = await defaultIssuer(vault, 'anchored')
      const web = ({ caFile }: Stage) => ({ more: { ...DUE_SOON.more, check: { trustFile: caFile } } })
      await using rig = await createRig({ vault, program, web, ...options })
      await survive(rig, {
        reason: 'chain_invalid',
        ...BY_ITSELF,
        inject: async () =>
          setDefaultIssuer(vault, 'anchored', await addIntermediate(vault, 'anchored', { by: 'elsewhere-root' })),
        repair: () => setDefaultIssuer(vault, 'anchored', first),
      })
    })

    test('V21 a tidy that removes our certificates from the mount is of no consequence', async () => {
      const vault = vaultOf()
      const web = { ttl: '14s', more: { renew: { before: '5s', jitter: 0 } } }
      await using rig = await createRig({ vault, program, web, ...(await ownMount('tidied')) })
      const { serial, notAfter } = await rig.certferry.certificate('web', 'is in service', isWell)
      const stored = `tidied/cert/${serial?.match(/../g)?.join(':')}`
      await vault.api('GET', stored)
      await until('it has ended', () => Date.now() > Number(notAfter) + 2_000)
      await vault.api('POST', 'tidied/tidy', { tidy_cert_store: true, safety_buffer: '1s' })
      await until('it is gone from the mount', () =>
        vault.api('GET', stored).then(
          () => false,
          () => true,
        ),
      )
      const then = await rig.certferry.certificate(
        'web',
        'was renewed',
        (status) => isWell(status) && status.serial !== serial,
      )
      await rig.certferry.certificate(
        'web',
        'is renewed again',
        (status) => isWell(status) && status.serial !== then.serial,
      )
      assertNoFailure(rig)
    })

    test('V26 a life that the role cuts down is accepted, and Vault is quoted once', async () => {
      await using rig = await createRig({ vault: vaultOf(), program })
      await changeRole(rig, { max_ttl: '60s' })
      for (let times = 0; times < 2; times += 1) {
        const { expiresInSeconds } = await rotateWell(rig)
        assert.ok(Number(expiresInSeconds) <= 60)
      }
      assertNoFailure(rig)
      assert.equal(rig.certferry.log('vault.warning').filter((line) => /maxTTL/.test(JSON.stringify(line))).length, 1)
    })

    test('V27 a life that Vault cuts down to that of the CA is accepted', async () => {
      const vault = vaultOf()
      await using rig = await createRig({ vault, program, ...(await ownMount('truncating')) })
      const short = await addIntermediate(vault, 'truncating', { ttl: '80s', leafNotAfter: 'truncate' })
      await setDefaultIssuer(vault, 'truncating', short)
      const { expiresInSeconds } = await rotateWell(rig)
      assertNoFailure(rig)
      assert.ok(Number(expiresInSeconds) <= 80)
    })
  })

  test('V4 many certificates behind a rate limit of two a second all get there, each issued once', async () => {
    const vault = vaultOf()
    await using stage = await createStage({ vault, program })
    const path = `${stage.mount}/sign/${stage.role}`
    await vault.api('POST', `sys/quotas/rate-limit/${stage.role}`, { path, rate: 2, interval: '1s' })
    const names = Array.from({ length: 20 }, (_, n) => `web-${n}`)
    await stage.configure(...names.map((name) => stage.web({ name, commonName: `${name}.example.com`, served: false })))
    await using certferry = stage.certferry()
    for (const name of names) await certferry.certificate(name, 'is there', isWell)
    assert.equal(await stage.issued(), names.length)
    const refused = certferry.log('rotation.failed')
    assert.ok(refused.length > 0, 'the limit was met')
    assert.ok(refused.every(({ reason }) => reason === 'rate_limited'))
    await vault.api('DELETE', `sys/quotas/rate-limit/${stage.role}`)
  })
})
