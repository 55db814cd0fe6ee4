import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as z from 'zod'
import { createTestCa, type Issued } from './ca.ts'
import { component } from './components.ts'
import { until } from './until.ts'
import {
  freePort,
  helpers,
  initialise,
  listenerBlock,
  type Send,
  type StagedVault,
  sender,
  startServer,
  type VaultTls,
} from './vault.ts'

/** One server of a cluster. */
export interface VaultNode {
  /** https, and what the others redirect to. */
  readonly address: string
  /** Ends it, as a crash of its machine would. */
  kill(): Promise<void>
}

/** A real cluster of three Vaults with integrated storage, over TLS. `api` finds one that answers. */
export interface VaultCluster extends StagedVault, AsyncDisposable {
  readonly caFile: string
  readonly caPem: string
  /** A certificate of the same CA, for whatever stands in front of a node. */
  readonly issued: Issued
  /** All that were not killed. */
  nodes(): readonly VaultNode[]
  /** The one that answers; waits until there is one. */
  leader(): Promise<VaultNode>
  /** Makes the leader give up; resolves once another one leads. */
  stepDown(): Promise<void>
}

interface RunningNode extends VaultNode {
  readonly send: Send
}

const SIZE = 3

export async function startVaultCluster(): Promise<VaultCluster> {
  const ca = await createTestCa({ commonName: 'Vault Root' })
  const issued = await ca.issue({ commonName: 'vault', altNames: ['127.0.0.1'] })
  const tls = { caPem: ca.rootPem, certPem: issued.certificatePem, keyPem: issued.keyPem }
  const directory = await mkdtemp(join(tmpdir(), 'certferry-cluster-'))
  const running: RunningNode[] = []
  const dispose = async () => {
    for (const node of [...running]) await node.kill()
    await rm(directory, { recursive: true, force: true })
  }
  try {
    for (let n = 0; n < SIZE; n += 1) {
      const node = await startNode(join(directory, `node-${n}`), tls)
      const kill = async () => {
        running.splice(running.indexOf(known), 1)
        await node.kill()
      }
      const known: RunningNode = { ...node, kill }
      running.push(known)
    }
    const { rootToken, unsealKey } = await form(running, ca.rootPem)
    const auditFile = join(directory, 'audit.log')
    const common = helpers({ send: toAnyOf(running), rootToken, unsealKey, auditFile })
    const { api, setupPki, setupApprole, audited } = common
    await until('the cluster is ready', () =>
      api('POST', 'sys/audit/file', { type: 'file', options: { file_path: auditFile } }),
    )
    // Who joined may vote after ten healthy seconds; until then nobody but the first can lead.
    await api('POST', 'sys/storage/raft/autopilot/configuration', { server_stabilization_time: '1s' })
    await until('everybody may vote', async () => {
      const { config } = Configuration.parse((await api('GET', 'sys/storage/raft/configuration')).data)
      return config.servers.filter(({ voter }) => voter).length === SIZE
    })
    const leader = () => until('the cluster has a leader', async () => (await leading(running)) ?? false)
    return {
      api,
      setupPki,
      setupApprole,
      audited,
      address: running[0]?.address ?? '',
      caFile: join(directory, 'node-0', 'ca.pem'),
      caPem: ca.rootPem,
      issued,
      nodes: () => running,
      leader,
      stepDown: async () => {
        const before = await leader()
        // The node that gave up may well be elected again: on a busy machine the others are too late.
        const another = async () => {
          const now = await leading(running)
          if (now === before) await now.send('POST', 'sys/step-down', {}, { 'X-Vault-Token': rootToken })
          return now !== undefined && now !== before
        }
        await until('another node leads', another, { timeoutMs: 120_000, everyMs: 500 })
      },
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

async function startNode(home: string, tls: VaultTls): Promise<RunningNode> {
  await mkdir(home)
  await mkdir(join(home, 'raft'))
  const [port, clusterPort] = [await freePort(), await freePort()]
  const address = `https://127.0.0.1:${port}`
  const config = join(home, 'vault.hcl')
  const settings = [
    'disable_mlock = true',
    // The least multiplier: a new leader within a second or two.
    `storage "raft" {\n  path = "${home}/raft"\n  node_id = "${port}"\n  performance_multiplier = 1\n}`,
    `api_addr = "${address}"`,
    `cluster_addr = "https://127.0.0.1:${clusterPort}"`,
    await listenerBlock(home, { port, clusterPort, tls }),
  ]
  await writeFile(config, settings.join('\n'), { mode: 0o600 })
  const send = sender(address, tls)
  const server = await startServer(await component('vault'), { config, home, send })
  return { address, send, kill: server.stop }
}

/** The first one begins, the others join it. */
async function form([first, ...others]: readonly RunningNode[], caPem: string) {
  if (!first) throw new Error('a cluster of none')
  const { rootToken, unsealKey } = await initialise(first.send)
  await until('the first node leads', async () => (await first.send('GET', 'sys/health')).status === 200)
  for (const { send } of others) {
    const join = { leader_api_addr: first.address, leader_ca_cert: caPem }
    await until('it joins', async () => (await send('POST', 'sys/storage/raft/join', join)).status === 200)
    // Once: while it joins, another key would disturb it.
    await send('POST', 'sys/unseal', { key: unsealKey })
    await until('it is a standby', async () => (await send('GET', 'sys/health')).status === 429)
  }
  return { rootToken, unsealKey }
}

const Configuration = z.object({ config: z.object({ servers: z.array(z.object({ voter: z.boolean() })) }) })
const Health = z.object({ initialized: z.boolean(), sealed: z.boolean(), standby: z.boolean() })

async function leading(nodes: readonly RunningNode[]): Promise<RunningNode | undefined> {
  for (const node of nodes) {
    const { status, body } = await node.send('GET', 'sys/health').catch(() => ({ status: 0, body: '' }))
    if (status === 200 && !Health.parse(JSON.parse(body)).standby) return node
  }
  return undefined
}

/** Standbys forward to the leader; a node that was killed is passed over. */
const toAnyOf =
  (nodes: readonly RunningNode[]): Send =>
  async (...request) => {
    const { send } = (await leading(nodes)) ?? nodes[0] ?? {}
    if (!send) throw new Error('no node is left')
    return send(...request)
  }
