import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { createTestCa, type IssueRequest } from '../../support/ca.ts'
import { skipReason } from '../../support/components.ts'
import { startFaultProxy } from '../../support/fault-proxy.ts'
import { bundleOnce, createRig, type FaultPlan, survive } from '../../support/fault-rig.ts'
import { freePort, startVault } from '../../support/vault.ts'
import { makeVolume } from '../../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const vaultOf = () => vault ?? assert.fail('no Vault')

const ca = await createTestCa({ commonName: 'Vault Root' })
const certificate = async (request: IssueRequest, by = ca) => {
  const { certificatePem: cert, keyPem: key } = await by.issue(request)
  return { cert, key }
}
const NAME = 'vault.example.test'
const good = await certificate({ altNames: ['127.0.0.1', NAME] })

describe('the way to Vault', { skip, concurrency: 8 }, () => {
  test('V9 a name that no longer resolves is told, and looked up again until it does, at whatever address', async (t) => {
    const folder = makeVolume(t)
    const hosts = join(folder, 'hosts')
    const resolver = join(folder, 'resolv.conf')
    const caFile = join(folder, 'ca.pem')
    writeFileSync(hosts, `127.0.0.1 ${NAME}\n`)
    // Nobody listens there.
    writeFileSync(resolver, 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n')
    writeFileSync(caFile, ca.rootPem)
    const port = await freePort()
    await using rig = await createRig({
      vault: vaultOf(),
      program,
      proxy: { port, tls: good },
      stage: { address: `https://${NAME}:${port}`, vaultOptions: { caFile } },
      certferry: { before: ['unshare', '-Urm', 'sh', '-c', BIND, hosts, resolver] },
    })
    assert.ok(rig.proxy.requests.length > 0, 'it came by its name')
    await using elsewhere = await startFaultProxy(undefined, {
      host: '127.0.0.2',
      port,
      tls: good,
      target: vaultOf().address,
    })
    await survive(rig, {
      reason: 'vault_dns',
      inject: async ({ proxy }) => {
        writeFileSync(hosts, '127.0.0.1 localhost\n')
        await proxy[Symbol.asyncDispose]()
      },
      repair: () => writeFileSync(hosts, `127.0.0.2 ${NAME}\n`),
    })
    assert.ok(elsewhere.requests.length > 0, 'it came to the new address')
  })

  const BAD: Readonly<Record<string, () => ReturnType<typeof certificate>>> = {
    'V10 a Vault whose certificate has expired': () =>
      certificate({
        altNames: ['127.0.0.1'],
        notBefore: new Date(Date.now() - 7_200_000),
        notAfter: new Date(Date.now() - 3_600_000),
      }),
    'V10 a Vault whose certificate is for another name': () => certificate({ altNames: ['other.example.test'] }),
  }
  for (const [name, bad] of Object.entries(BAD)) {
    test(`${name} is not asked for anything, and trusted again once it shows a good one`, async (t) => {
      const shown = await bad()
      await using rig = await rigOverTls(t)
      await survive(rig, untrusted(rig, shown, { repair: ({ proxy }) => proxy.showCertificate(good) }))
    })
  }

  test('V10 a Vault with a certificate of a new CA is trusted once the CA file holds that, without a restart', async (t) => {
    const next = await createTestCa({ commonName: 'Next Vault Root' })
    const shown = await certificate({ altNames: ['127.0.0.1'] }, next)
    await using rig = await rigOverTls(t)
    await survive(
      rig,
      untrusted(rig, shown, { repair: ({ caFile }) => writeFileSync(caFile, `${ca.rootPem}${next.rootPem}`) }),
    )
  })
})

/** Puts other files over those of the system, for the command alone that follows. */
const BIND = 'mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'

/** certferry trusts the CA in `caFile`, and meets Vault by TLS. */
async function rigOverTls(t: TestContext) {
  const caFile = join(makeVolume(t), 'ca.pem')
  writeFileSync(caFile, ca.rootPem)
  const rig = await createRig({ vault: vaultOf(), program, proxy: { tls: good }, stage: { vaultOptions: { caFile } } })
  return { ...rig, caFile }
}

type TlsRig = Awaited<ReturnType<typeof rigOverTls>>

function untrusted(rig: TlsRig, shown: typeof good, { repair }: { readonly repair: (rig: TlsRig) => void }): FaultPlan {
  let before = 0
  return {
    reason: 'vault_tls',
    inject: ({ proxy }) => {
      proxy.showCertificate(shown)
      before = proxy.requests.length
    },
    meanwhile: { also: ({ rig: { proxy } }) => assert.equal(proxy.requests.length, before, 'nothing was sent') },
    repair: () => repair(rig),
  }
}
