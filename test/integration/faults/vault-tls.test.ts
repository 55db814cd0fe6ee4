import assert from 'node:assert/strict'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { connect } from 'node:tls'
import { createTestCa, type Issued } from '../../support/ca.ts'
import { skipReason } from '../../support/components.ts'
import { askThrice, bundleOnce, createRig, survive } from '../../support/fault-rig.ts'
import { until } from '../../support/until.ts'
import { startVault, type TestVault } from '../../support/vault.ts'
import { makeVolume } from '../../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const ca = await createTestCa({ commonName: 'Vault Root' })
const served = await ca.issue({ altNames: ['127.0.0.1'] })
const shared = skip ? undefined : await startTlsVault()
after(() => shared?.[Symbol.asyncDispose]())
await shared?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const vaultOf = () => shared ?? assert.fail('no Vault')

describe('a real Vault over TLS that wants client certificates', { skip }, () => {
  test('V11 that refuses ours, since it has expired, is told, and used again once a new one is in the file', async (t) => {
    const client = await clientFiles(t)
    await using rig = await createDirectRig(client.files)
    await survive(rig, {
      reason: 'vault_client_cert',
      inject: async () => {
        client.deliver(await ca.issue(EXPIRED()))
        await untilDisconnected()
      },
      trigger: askThrice,
      repair: async () => client.deliver(await ca.issue()),
    })
  })

  test('V10 that shows a certificate of an unknown CA is told, and used again once it shows a good one', async (t) => {
    const stranger = await createTestCa({ commonName: 'Somebody Else' })
    await using rig = await createDirectRig((await clientFiles(t)).files)
    await survive(rig, {
      reason: 'vault_tls',
      inject: async () => {
        await show(await stranger.issue({ altNames: ['127.0.0.1'] }))
        await untilDisconnected()
      },
      repair: () => show(served),
    })
  })
})

async function startTlsVault(): Promise<TestVault> {
  const { certificatePem, keyPem } = await ca.issue()
  return startVault({
    tls: {
      caPem: ca.rootPem,
      certPem: served.certificatePem,
      keyPem: served.keyPem,
      clientCaPem: ca.rootPem,
      client: { certPem: certificatePem, keyPem },
    },
  })
}

const EXPIRED = () => ({ notBefore: new Date(Date.now() - 7_200_000), notAfter: new Date(Date.now() - 60_000) })

/** Without anything between certferry and Vault. */
const createDirectRig = (files: object) =>
  createRig({
    vault: vaultOf(),
    program,
    stage: { address: vaultOf().address, vaultOptions: { caFile: vaultOf().caFile, ...files } },
  })

async function clientFiles(t: TestContext) {
  const folder = makeVolume(t)
  const files = { clientCertFile: join(folder, 'client.crt'), clientKeyFile: join(folder, 'client.key') }
  const deliver = ({ certificatePem, keyPem }: Issued) => {
    place(files.clientCertFile, certificatePem)
    place(files.clientKeyFile, keyPem)
  }
  deliver(await ca.issue())
  return { files, deliver }
}

function place(path: string, content: string): void {
  writeFileSync(`${path}.new`, content, { mode: 0o600 })
  renameSync(`${path}.new`, path)
}

/** Vault reads its certificate again on SIGHUP. */
async function show({ certificatePem, keyPem, bundle }: Issued): Promise<void> {
  const folder = dirname(vaultOf().caFile ?? '')
  place(join(folder, 'server.crt'), certificatePem)
  place(join(folder, 'server.key'), keyPem)
  process.kill(vaultOf().pid, 'SIGHUP')
  await until('Vault shows it', async () => (await shown()) === bundle.leaf.fingerprint256)
}

function shown(): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: portOf(vaultOf()), rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().fingerprint256)
      socket.destroy()
    })
    socket.on('error', reject)
  })
}

const portOf = ({ address }: TestVault) => Number(new URL(address).port)

/** A connection that stands was judged when it began. certferry lets go of an idle one after ten seconds. */
async function untilDisconnected(): Promise<void> {
  const remote = `0100007F:${portOf(vaultOf()).toString(16).toUpperCase().padStart(4, '0')}`
  const ESTABLISHED = '01'
  await until('nobody is connected to Vault', () =>
    readFileSync('/proc/net/tcp', 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .every(([, , to, state]) => to !== remote || state !== ESTABLISHED),
  )
}
