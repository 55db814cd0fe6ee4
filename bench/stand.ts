import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ComponentName, component } from '../test/support/components.ts'
import { startVault } from '../test/support/vault.ts'
import { buildDist } from '../tools/build.ts'
import { type Contender, certferry, consulTemplate, likeTheImage, vaultAgent } from './contenders.ts'
import type { Bench } from './row.ts'

const ROLE = 'bench'
const POLICY = `path "pki/issue/${ROLE}" { capabilities = ["update"] }\npath "pki/sign/${ROLE}" { capabilities = ["update"] }`

export interface Stand extends Bench, AsyncDisposable {
  /** Contenders that could not be had, and why. */
  readonly absent: readonly { readonly name: string; readonly why: string }[]
}

export type StandOptions = Pick<Bench, 'size' | 'volumeIn' | 'progress'>

/** Everything that is measured, and a Vault for it. */
export async function createStand(options: StandOptions): Promise<Stand> {
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
  const { env, flags } = likeTheImage(compileCache)
  const found = [
    {
      name: 'certferry',
      contender: certferry(process.execPath, join(dist, 'cli.cjs'), compileCache),
      why: undefined,
    },
    await unlessMissing('Vault Agent', 'vault', vaultAgent),
    await unlessMissing('consul-template', 'consul-template', consulTemplate),
  ]
  const { server, vault, role } = opened.use(await openVault())
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
    imageEnv: { ...env, NODE_OPTIONS: flags.join(' ') },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
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

async function unlessMissing(name: string, program: ComponentName, create: (program: string) => Contender) {
  try {
    return { name, contender: create(await component(program)), why: undefined }
  } catch (error) {
    return { name, contender: undefined, why: error instanceof Error ? error.message : String(error) }
  }
}
