import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import * as z from 'zod'
import { certificatePem, parseCertificates } from '../../../src/core/bundle.ts'
import { createCsr } from '../../../src/core/csr.ts'
import { generateKey } from '../../../src/core/key.ts'
import { createTestCa } from '../../support/ca.ts'
import { skipReason } from '../../support/components.ts'
import { answer, type Fault, gzipBomb } from '../../support/fault-proxy.ts'
import {
  askForRotation,
  assertNoFailure,
  BY_ITSELF,
  bundleOnce,
  createRig,
  DUE_SOON,
  type FaultPlan,
  type Rig,
  type RigOptions,
  rotateWell,
  survive,
  untilFailed,
} from '../../support/fault-rig.ts'
import { SERVER_NAME, type Stage } from '../../support/stage.ts'
import { startVault, type TestVault, WEB_ROLE } from '../../support/vault.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const SIGN = '/v1/pki/sign/'

/** Faults on the way to Vault for requests of this path, one after the other and from the start again: each is met, and told alike. */
function met(reason: string, [first, ...more]: readonly [Fault, ...Fault[]], plan: Partial<FaultPlan> = {}): FaultPlan {
  const faults = [first, ...more]
  let seen = 0
  return {
    reason,
    inject: ({ proxy }) => {
      proxy.onRequest = ({ url }) => (url.startsWith(SIGN) ? faults[seen++ % faults.length] : undefined)
    },
    repair: clear,
    ...plan,
    meanwhile: {
      ...plan.meanwhile,
      also: async (story) => {
        await untilFailed(story.rig.certferry, faults.length)
        // On a busy machine there may be one try more by now, which the issue budget may hold back.
        for (const [index, line] of story.rig.certferry.log('rotation.failed').entries())
          if (index < faults.length || line.reason !== 'budget_spent') assert.equal(line.reason, reason)
        await plan.meanwhile?.also?.(story)
      },
    },
  }
}

const clear = ({ proxy }: Rig) => {
  proxy.onRequest = () => undefined
}

/** A real answer of Vault with other content. */
const edited = (change: (data: Issued) => object): Fault => ({
  kind: 'edit',
  edit: (body) => {
    const reply = Reply.parse(JSON.parse(body))
    return JSON.stringify({ ...reply, data: change(reply.data) })
  },
})

const Issued = z.looseObject({
  certificate: z.string(),
  issuing_ca: z.string(),
  ca_chain: z.array(z.string()),
})
type Issued = z.output<typeof Issued>
const Reply = z.looseObject({ data: Issued })

/** Vault may have issued something, so these tries count. */
const countsAsIssued: FaultPlan['meanwhile'] = {
  also: ({ held }) => assert.ok(held.issuedRecently > 1, 'what may have been issued counts against the budget'),
}
const countsForNothing: FaultPlan['meanwhile'] = {
  also: ({ held }) => assert.equal(held.issuedRecently, 1, 'nothing was issued for sure'),
}
const tellsNothing: FaultPlan['meanwhile'] = {
  also: ({ rig }) => assert.ok(!told(rig).includes('canary'), 'nothing of the answer is logged'),
}

/** All that it wrote. */
const told = ({ certferry }: Rig) => `${JSON.stringify(certferry.log())}${certferry.stderr()}`
const logins = ({ proxy }: Rig) => proxy.requests.filter(({ url }) => url === '/v1/auth/approle/login').length
const signs = ({ proxy }: Rig) => proxy.requests.filter(({ url }) => url.startsWith(SIGN)).length

const MIB = 1024 * 1024
const NAMES = { commonName: SERVER_NAME, dns: [SERVER_NAME], ip: [], uri: [], email: [] }
const JSON_TYPE = { 'content-type': 'application/json' }
const PAGE = answer(200, '<html><h1>canary</h1></html>', { 'content-type': 'text/html' })
const HALF = '{"data":{"certificate":"-----BEGIN CERT'
const half = (end: 'silence' | 'close' | 'reset'): Fault => ({ kind: 'part', body: HALF, length: 4_000, end })
const HOSTILE = `\u001b[31mred\u001b[0m\n{"event":"forged"}\r\nhvs.${'A'.repeat(40)} ${'x'.repeat(5_000)}`

/** What its process holds in memory. */
const memoryOf = ({ certferry }: Rig) =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${certferry.pid}/status`, 'utf8'))?.[1]) * 1024

describe('on the way to Vault', { skip, concurrency: 2 }, () => {
  describe('what Vault, or something in between, answers', { concurrency: 4 }, () => {
    const PLANS: Readonly<Record<string, FaultPlan & { readonly with?: Partial<RigOptions> }>> = {
      'V3 a disaster-recovery secondary (472), or a node that was never initialised (501),': met('vault_unusable', [
        answer(472, {}),
        answer(501, { errors: ['Vault is not initialized'] }),
      ]),
      'V5 a node that lags behind without end (412)': met('vault_not_replicated', [answer(412, { errors: [] })], {
        afterwards: { also: ({ rig }) => assert.equal(logins(rig), 1, 'no new login') },
      }),
      'V6 500 of Vault': met('vault_5xx', [answer(500, { errors: ['internal error'] })], {
        meanwhile: countsForNothing,
      }),
      'V6 502 and 504 of a proxy, behind which Vault may have issued,': met(
        'vault_5xx',
        [answer(502, '<html>canary'), answer(504, 'canary')],
        { meanwhile: countsAsIssued },
      ),
      'V7 an answer that does not come, or stops in the middle,': {
        ...met('vault_timeout', [{ kind: 'silence' }, half('silence')], { meanwhile: countsAsIssued }),
        with: { stage: { vaultOptions: { timeouts: { connect: '1s', headers: '1s', body: '1s', total: '5s' } } } },
      },
      'V8 an answer that is reset in the middle, shorter than announced, or half its JSON': met(
        'bad_response',
        [half('reset'), half('close'), answer(200, HALF, JSON_TYPE)],
        { meanwhile: countsAsIssued },
      ),
      'V23 a chain without the issuers, when nobody tells them,': {
        ...met('chain_invalid', [{ kind: 'silence' }]),
        ...BY_ITSELF,
        inject: ({ proxy }) => {
          proxy.onRequest = ({ url }) =>
            url.startsWith(SIGN)
              ? edited((data) => ({ ...data, ca_chain: [], issuing_ca: '' }))
              : url.includes('/issuer/')
                ? answer(404, { errors: [] })
                : undefined
        },
        with: { web: DUE_SOON },
      },
      'V28 204, or no data,': met('bad_response', [answer(204), answer(200, { data: null })], {
        meanwhile: tellsNothing,
      }),
      'V28 no certificate, or a list where text belongs,': met(
        'bad_response',
        [answer(200, { data: { serial_number: 'canary' } }), answer(200, { data: { certificate: ['canary'] } })],
        { meanwhile: tellsNothing },
      ),
      'V30 the page of a proxy with status 200': met('bad_response', [PAGE], { meanwhile: tellsNothing }),
      'V31 a certificate with NUL or blank lines in its base64': met(
        'bad_response',
        [
          edited((data) => ({ ...data, certificate: data.certificate.replace('MII', 'M\0I') })),
          edited((data) => ({ ...data, certificate: data.certificate.replaceAll('\n', '\n\n') })),
        ],
        { afterwards: { issued: [5, 8] } },
      ),
      'V31 a refusal with control characters, line breaks, a token and no end': met(
        'request_rejected',
        [answer(400, { errors: [HOSTILE] })],
        {
          meanwhile: {
            also: ({ rig, held }) => {
              assert.equal(rig.certferry.log('forged').length, 0)
              const message = held.lastError?.message ?? ''
              assert.doesNotMatch(message, /\p{Cc}|hvs\.A/u)
              assert.ok(message.length < 1_000, `${message.length} characters`)
            },
          },
        },
      ),
    }
    for (const [name, { with: options, ...plan }] of Object.entries(PLANS)) {
      test(`${name} is told, keeps the set in service, and does not outlive its cause`, async () => {
        if (!vault) return
        await using rig = await createRig({ vault, program, ...options })
        await survive(rig, plan)
      })
    }
  })

  describe('an answer that is odd, but no reason to fail', { concurrency: 4 }, () => {
    test('V3 whatever sys/health says (429, 472, 473, 501, 503) is advice only, and holds no rotation up', async () => {
      if (!vault) return
      await using rig = await createRig({ vault, program, web: { served: false } })
      for (const status of [429, 472, 473, 501, 503]) {
        rig.proxy.onRequest = ({ url }) => (url.startsWith('/v1/sys/health') ? answer(status, {}) : undefined)
        await rotateWell(rig)
      }
      assertNoFailure(rig)
    })

    test('V5 a node that lags behind for a moment (412) is asked again on the spot, without a new login and without a failure', async () => {
      if (!vault) return
      await using rig = await createRig({ vault, program })
      const before = signs(rig)
      rig.proxy.onRequest = ({ url }) =>
        url.startsWith(SIGN) && signs(rig) <= before + 3 ? answer(412, { errors: ['not yet'] }) : undefined
      await rotateWell(rig)
      assertNoFailure(rig)
      assert.equal(signs(rig), before + 4)
      assert.equal(logins(rig), 1)
    })

    test('V23 issuers that come twice and in the wrong order are put in order', async () => {
      if (!vault) return
      await using rig = await createRig({ vault, program })
      rig.proxy.onRequest = ({ url }) =>
        url.startsWith(SIGN)
          ? edited((data) => ({ ...data, ca_chain: [...data.ca_chain, ...data.ca_chain].reverse(), issuing_ca: '' }))
          : undefined
      const { fingerprint } = await rotateWell(rig)
      assertNoFailure(rig)
      const chain = parseCertificates(readFileSync(join(rig.directory, 'tls.crt'), 'utf8'))
      assert.equal(chain.length, 2, 'leaf and intermediate, the root apart')
      assert.ok(chain[0]?.checkIssued(chain[1] ?? chain[0]))
      assert.equal(chain[0]?.fingerprint256.replaceAll(':', '').toLowerCase(), fingerprint)
    })

    test('V31 text around the certificates, carriage returns, blank lines and odd numbers reach no file', async () => {
      if (!vault) return
      await using rig = await createRig({ vault, program })
      rig.proxy.onRequest = ({ url }) =>
        url.startsWith(SIGN)
          ? edited((data) => ({
              ...data,
              certificate: `canary: $(touch /tmp/x)\r\n\0${data.certificate.replaceAll('\n', '\r\n')}\u202ecanary`,
              ca_chain: data.ca_chain.map((pem) => `Bag Attributes: canary\n${pem}\n\n\n`),
              serial_number: '01:02"; canary\n{"event":"forged"}',
              expiration: -1,
              private_key_type: 'canary',
            }))
          : undefined
      await rotateWell(rig)
      assertNoFailure(rig)
      assert.ok(!told(rig).includes('canary'))
      for (const name of ['tls.crt', 'ca.crt']) {
        const text = readFileSync(join(rig.directory, name), 'utf8')
        assert.equal(
          text,
          parseCertificates(text).map(certificatePem).join(''),
          `${name} is made anew from what was parsed`,
        )
      }
    })
  })

  describe('an answer that belongs to another request', { concurrency: 4 }, () => {
    /** A real answer to a request of our own, with the same names. */
    const another = async ({ api }: TestVault, body: string) => {
      const csr = await createCsr(NAMES, await generateKey('ecdsa-p256'))
      return answer(200, await api('POST', 'pki/sign/web', { ...z.looseObject({}).parse(JSON.parse(body)), csr }))
    }

    test('V22 a certificate for another key is refused, and nothing of it is written', async () => {
      if (!vault) return
      await using rig = await createRig({ vault, program })
      await survive(rig, {
        ...met('key_mismatch', [{ kind: 'silence' }], { meanwhile: countsAsIssued }),
        inject: ({ proxy }) => {
          proxy.onRequest = ({ url, body }) => (url.startsWith(SIGN) ? another(vault, body) : undefined)
        },
      })
    })

    test('V22 and V32 the answer to an earlier request, from a cache, is refused', async () => {
      if (!vault) return
      await using rig = await createRig({ vault, program })
      const cached = await remembered(rig)
      // One more than usual: the one that went into the cache.
      await survive(rig, met('key_mismatch', [answer(200, cached, JSON_TYPE)], { afterwards: { issued: 3 } }))
    })

    test('V32 the same certificate with its key, from a cache, is refused without a reload', async () => {
      if (!vault) return
      await using rig = await createRig({
        vault,
        program,
        web: { source: { method: 'issue' } },
        stage: { policy: (mount, role) => `path "${mount}/issue/${role}" { capabilities = ["update"] }` },
        prepare: async ({ role }) => {
          await vault.api('POST', `pki/roles/${role}`, { ...WEB_ROLE, key_type: 'ec', key_bits: 256 })
        },
      })
      const cached = await remembered(rig)
      const reloads = () => rig.certferry.log('reload.finished').length
      const before = reloads()
      await survive(rig, {
        reason: 'stale_response',
        inject: ({ proxy }) => {
          proxy.onRequest = ({ url }) => (url.startsWith('/v1/pki/issue/') ? answer(200, cached, JSON_TYPE) : undefined)
        },
        repair: clear,
        meanwhile: { also: () => assert.equal(reloads(), before) },
        afterwards: { issued: 3 },
      })
    })

    /** Rotates, and gives the answer as a cache would have kept it. */
    async function remembered(rig: Rig): Promise<string> {
      let kept = ''
      rig.proxy.onRequest = ({ url }) =>
        /^\/v1\/pki\/(?:sign|issue)\//.test(url)
          ? {
              kind: 'edit',
              edit: (body) => {
                kept = body
                return body
              },
            }
          : undefined
      await rotateWell(rig)
      clear(rig)
      return kept
    }
  })

  describe('a certificate that must not be put into service', { concurrency: 4 }, () => {
    test('V23 one of a foreign CA is refused where check.trustFile names the roots', async () => {
      if (!vault) return
      const foreign = await createTestCa({ commonName: 'Foreign Root' })
      const web = ({ caFile }: Stage) => ({ more: { ...DUE_SOON.more, check: { trustFile: caFile } } })
      await using rig = await createRig({ vault, program, web })
      await survive(rig, {
        reason: 'chain_invalid',
        ...BY_ITSELF,
        // Those that were refused are not Vault's.
        afterwards: { issued: [2, 3] },
        inject: ({ proxy }) => {
          proxy.onRequest = async ({ url, body }) => {
            if (!url.startsWith(SIGN)) return undefined
            const { csr } = z.looseObject({ csr: z.string() }).parse(JSON.parse(body))
            const { certificatePem: certificate, chainPems } = await foreign.sign(csr, { withIntermediate: true })
            return answer(200, { data: { certificate, issuing_ca: chainPems[0], ca_chain: chainPems } })
          }
        },
        repair: clear,
      })
    })
  })

  test('V29 and V30 bodies without end and gzip bombs are cut off, do not fill the memory, and do not outlive their cause', async () => {
    if (!vault) return
    await using rig = await createRig({ vault, program })
    const before = memoryOf(rig)
    const faults = [{ kind: 'flood' }, gzipBomb(), { kind: 'flood', headers: { 'content-type': 'text/html' } }] as const
    await survive(
      rig,
      met('bad_response', faults, {
        trigger: async () => {
          for (let times = 1; times <= 9; times += 1) {
            await askForRotation(rig)
            await untilFailed(rig.certferry, times)
          }
        },
        meanwhile: {
          also: () => {
            const grown = memoryOf(rig) - before
            assert.ok(grown < 64 * MIB, `${Math.round(grown / MIB)} MiB more after nine of them`)
          },
        },
      }),
    )
  })
})
