import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { component } from '../test/support/components.ts'
import { startVault } from '../test/support/vault.ts'
import { buildDist } from '../tools/build.ts'
import { type Contender, certferry, consulTemplate, vaultAgent } from './contenders.ts'
import { launch } from './launch.ts'
import type { Bench } from './row.ts'

const ROLE = 'bench'
const POLICY = `path "pki/issue/${ROLE}" { capabilities = ["update"] }\npath "pki/sign/${ROLE}" { capabilities = ["update"] }\npath "kv/data/bench/*" { capabilities = ["read"] }`

export interface Stand extends Bench, AsyncDisposable {
  /** Contenders that could not be had, and why. */
  readonly absent: readonly { readonly name: string; readonly why: string }[]
}

export interface StandOptions extends Pick<Bench, 'size' | 'volumeIn' | 'progress'> {
  /** All of them unless given. */
  readonly peers?: readonly PeerName[]
}

type PeerName = keyof typeof PEERS

const PEERS = {
  'Vault Agent': (): Promise<Contender> => component('vault').then(vaultAgent),
  'consul-template': (): Promise<Contender> => component('consul-template').then(consulTemplate),
}
const PEER_NAMES: readonly PeerName[] = ['Vault Agent', 'consul-template']

/** Everything that is measured, and a Vault for it. */
export async function createStand({ peers = PEER_NAMES, ...options }: StandOptions): Promise<Stand> {
  await using opened = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'certferry-bench-dist-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  // Also when it ends by a signal.
  process.once('exit', remove)
  opened.defer(remove)
  const dist = join(folder, 'dist')
  options.progress('building the bundle')
  const chunks = await buildDist(dist)
  const compileCache = join(folder, 'compile-cache')
  const own = certferry(process.execPath, join(dist, 'cli.cjs'), compileCache)
  const found = [{ name: own.name, contender: own, why: undefined }, ...(await Promise.all(peers.map(unlessMissing)))]
  const { server, vault, role } = opened.use(await openVault())
  await fillCompileCache(own, { ...options, vault, role })
  const held = opened.move()
  return {
    ...options,
    contenders: found.flatMap(({ contender }) => contender ?? []),
    absent: found.flatMap(({ name, why }) => (why === undefined ? [] : [{ name, why }])),
    server,
    vault,
    role,
    dist,
    chunks,
    compileCache,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

/** As the image does when it is built: Node that has to compile all it loads is slower, and keeps more memory. */
async function fillCompileCache(own: Contender, bench: Parameters<typeof launch>[1]) {
  await using running = await launch(own, bench)
  await running.delivered()
}

/** A server in memory, with an intermediate CA and its audit log on. */
export async function openVault(): Promise<Pick<Bench, 'server' | 'vault' | 'role'> & AsyncDisposable> {
  const server = await startVault()
  const role = { allow_any_name: true, key_type: 'ec', key_bits: 256, ttl: '720h' }
  await server.setupPki({ roles: { [ROLE]: role } })
  const token = await server.createToken({ policy: POLICY, body: { period: '24h' } })
  return {
    server,
    vault: { address: server.address, token },
    role: ROLE,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

async function unlessMissing(name: PeerName) {
  try {
    return { name, contender: await PEERS[name](), why: undefined }
  } catch (error) {
    return { name, contender: undefined, why: error instanceof Error ? error.message : String(error) }
  }
}
