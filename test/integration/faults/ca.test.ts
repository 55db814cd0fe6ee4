import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { connect } from 'node:tls'
import { promisify } from 'node:util'
import { parseCertificates } from '../../../src/core/bundle.ts'
import { skipReason } from '../../support/components.ts'
import { startFaultProxy } from '../../support/fault-proxy.ts'
import {
  assertNoFailure,
  BY_ITSELF,
  bundleOnce,
  createRig,
  DUE_SOON,
  isWell,
  type Rig,
  rotateWell,
  servedBy,
  survive,
} from '../../support/fault-rig.ts'
import { SERVER_NAME, type Stage } from '../../support/stage.ts'
import { startVault } from '../../support/vault.ts'
import { addIntermediate, defaultIssuer, setDefaultIssuer } from '../../support/vault-issuers.ts'

const skip = await skipReason('vault', 'nginx')
const shared = skip ? undefined : await startVault()
after(() => shared?.[Symbol.asyncDispose]())
const { program, remove } = await bundleOnce()
after(remove)

const vaultOf = () => shared ?? assert.fail('no Vault')

/** A mount of its own, and another root beside it, to which it can move. */
async function twoRoots(name: string) {
  const { rootPem: oldRoot } = await vaultOf().setupPki({ mount: name })
  const { rootPem: newRoot } = await vaultOf().setupPki({ mount: `${name}-new` })
  const first = await defaultIssuer(vaultOf(), name)
  return {
    oldRoot,
    newRoot,
    union: `${oldRoot}\n${newRoot}\n`,
    stage: { mount: name },
    move: async () =>
      setDefaultIssuer(vaultOf(), name, await addIntermediate(vaultOf(), name, { by: `${name}-new-root` })),
    moveBack: () => setDefaultIssuer(vaultOf(), name, first),
  }
}

/** With an intermediate as default that ends so soon. */
async function endingCa(name: string, leafNotAfter: 'err' | 'truncate' | 'permit', ttl: string) {
  await vaultOf().setupPki({ mount: name })
  const first = await defaultIssuer(vaultOf(), name)
  return {
    stage: { mount: name },
    inject: async () =>
      setDefaultIssuer(vaultOf(), name, await addIntermediate(vaultOf(), name, { ttl, leafNotAfter })),
    repair: () => setDefaultIssuer(vaultOf(), name, first),
  }
}

/** Why a client that trusts this root alone refuses what it is shown; undefined where it does not. */
function refusal({ port }: Pick<Stage, 'port'>, root: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, servername: SERVER_NAME, ca: root })
    socket.on('secureConnect', () => {
      socket.destroy()
      resolve(undefined)
    })
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code))
  })
}

const certificatesIn = ({ directory }: Rig, name: string) =>
  parseCertificates(readFileSync(join(directory, name), 'utf8'))

/** The set that readers find leads to this root, by itself. */
function assertLeadsTo(rig: Rig, root: string) {
  const [leaf, issuer, ...more] = certificatesIn(rig, 'tls.crt')
  const [anchor] = parseCertificates(root)
  assert.ok(leaf && issuer && anchor && more.length === 0)
  assert.ok(leaf.verify(issuer.publicKey) && issuer.verify(anchor.publicKey), 'leaf, intermediate and root of one CA')
  assert.deepEqual(
    certificatesIn(rig, 'ca.crt').map(({ fingerprint256 }) => fingerprint256),
    [anchor.fingerprint256],
  )
}

describe('the CA', { skip, concurrency: 4 }, () => {
  test('K1 a new root and intermediate come with their first certificate as one set, to clients that know the new root', async () => {
    const { oldRoot, newRoot, stage, move } = await twoRoots('moving')
    await using rig = await createRig({ vault: vaultOf(), program, stage })
    assertLeadsTo(rig, oldRoot)
    assert.equal(await refusal(rig.stage, oldRoot), undefined)
    await move()
    const { fingerprint } = await rotateWell(rig)
    assertNoFailure(rig)
    assertLeadsTo(rig, newRoot)
    assert.equal(await servedBy(rig.stage), fingerprint)
    assert.equal(await refusal(rig.stage, newRoot), undefined)
    assert.equal(await refusal(rig.stage, oldRoot), 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY')
  })

  test('K1 a new root that check.trustFile does not name is refused until it does, without a restart', async () => {
    const { oldRoot, newRoot, union, stage, move } = await twoRoots('awaited')
    const web = ({ caFile }: Stage) => ({ more: { ...DUE_SOON.more, check: { trustFile: caFile } } })
    await using rig = await createRig({ vault: vaultOf(), program, stage, web })
    await survive(rig, {
      reason: 'chain_invalid',
      ...BY_ITSELF,
      inject: move,
      meanwhile: {
        also: async () => assert.equal(await refusal(rig.stage, oldRoot), undefined, 'clients know the root they see'),
      },
      repair: async () => void (await rig.stage.place('ca.pem', union)),
    })
    assertLeadsTo(rig, newRoot)
    assert.equal(await refusal(rig.stage, union), undefined)
  })

  test('K1 a check.trustFile that is torn or gone for a while counts as it was', async () => {
    const { oldRoot, newRoot, union, stage, move, moveBack } = await twoRoots('torn')
    const web = ({ caFile }: Stage) => ({ more: { check: { trustFile: caFile } } })
    await using rig = await createRig({ vault: vaultOf(), program, stage, web })
    await rig.stage.place('ca.pem', union)
    await move()
    await rotateWell(rig)
    for (const rest of [oldRoot.slice(0, 200), '', `${oldRoot.slice(0, 100)}${newRoot}`]) {
      await rig.stage.place('ca.pem', rest)
      await rotateWell(rig)
    }
    rmSync(rig.stage.caFile)
    await moveBack()
    await rotateWell(rig)
    assertNoFailure(rig)
    assertLeadsTo(rig, oldRoot)
  })

  test('K2 the end of the CA is told at any time, as a metric and in the status, and is that of the new one after a change', async () => {
    const { oldRoot, newRoot, stage, move } = await twoRoots('lasting')
    await using rig = await createRig({ vault: vaultOf(), program, stage })
    const told = async () => {
      const { issuerNotAfter } = await rig.certferry.certificate('web', 'is in service', isWell)
      const metric = await rig.certferry.metric('certferry_issuer_not_after_timestamp_seconds{certificate="web"}')
      assert.equal(metric, Number(issuerNotAfter) / 1000)
      return issuerNotAfter
    }
    const firstEnd = (root: string) =>
      Math.min(
        ...[...certificatesIn(rig, 'tls.crt').slice(1), ...parseCertificates(root)].map((ca) =>
          ca.validToDate.getTime(),
        ),
      )
    const before = await told()
    assert.equal(before, firstEnd(oldRoot))
    await move()
    await rotateWell(rig)
    assert.equal(await told(), firstEnd(newRoot))
    assert.notEqual(await told(), before)
  })

  test('K2 a CA that ends before the next certificate would is told with the first failure, and a new issuer is all it takes', async () => {
    const { stage, ...fault } = await endingCa('ending', 'err', '60s')
    await using rig = await createRig({ vault: vaultOf(), program, stage })
    const { held } = await survive(rig, { reason: 'ca_expiring', ...fault })
    assert.equal(held.failures, 1, 'DEGRADED at once: only a person can help')
  })

  test('K2 a certificate that would outlive its CA is refused where Vault issues it all the same', async () => {
    const { stage, ...fault } = await endingCa('permitting', 'permit', '60s')
    await using rig = await createRig({ vault: vaultOf(), program, stage, web: DUE_SOON })
    await survive(rig, { reason: 'ca_expiring', ...BY_ITSELF, ...fault })
  })

  test('K2 a CA that cuts its certificates short is followed to its end, and what is below check.minTtl is told', async () => {
    const { stage, ...fault } = await endingCa('truncating', 'truncate', '80s')
    const web = { more: { check: { minTtl: '90s' }, ...DUE_SOON.more } }
    await using rig = await createRig({ vault: vaultOf(), program, stage, web })
    await survive(rig, { reason: 'ttl_too_short', ...BY_ITSELF, ...fault })
  })

  test('K3 nobody is asked about revocation: an OCSP responder and a CRL that hang or cannot be reached disturb nothing', async () => {
    await using responder = await startFaultProxy(() => ({ kind: 'silence' }))
    const stage = { mount: 'asked' }
    await vaultOf().setupPki(stage)
    await vaultOf().api('POST', 'asked/config/urls', {
      ocsp_servers: [responder.address],
      crl_distribution_points: ['http://127.0.0.1:1/crl'],
    })
    await using rig = await createRig({ vault: vaultOf(), program, stage })
    const [leaf] = certificatesIn(rig, 'tls.crt')
    assert.match(leaf?.infoAccess ?? '', new RegExp(responder.address), 'the certificate names the responder')
    await rotateWell(rig)
    assertNoFailure(rig)
    assert.equal(responder.connections(), 0)
  })

  test('K3 a certificate that Vault tells to be revoked is replaced by "rotate --reason compromise --wait"', async () => {
    const stage = { mount: 'revoking' }
    await vaultOf().setupPki(stage)
    await using rig = await createRig({ vault: vaultOf(), program, stage })
    const { serial } = await rig.certferry.certificate('web', 'is in service', isWell)
    const colons = serial?.match(/../g)?.join(':')
    await vaultOf().api('POST', 'revoking/revoke', { serial_number: colons })
    const revoked = async (of: string | null | undefined) =>
      Number((await vaultOf().api('GET', `revoking/cert/${of?.match(/../g)?.join(':')}`)).data?.revocation_time) > 0
    assert.ok(await revoked(serial))
    await promisify(execFile)(process.execPath, [
      program,
      ...['rotate', 'web', '--reason', 'compromise', '--wait', '-c', rig.stage.configFile],
    ])
    const next = await rig.certferry.certificate('web', 'is replaced', (now) => isWell(now) && now.serial !== serial)
    assert.equal(await servedBy(rig.stage), next.fingerprint)
    assert.equal(await revoked(next.serial), false)
    assertNoFailure(rig)
  })
})
