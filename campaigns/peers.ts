import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { component } from '../test/support/components.ts'
import { startFaultProxy } from '../test/support/fault-proxy.ts'
import { createStage, SERVER_NAME } from '../test/support/stage.ts'
import { until } from '../test/support/until.ts'
import { type TestVault, WEB_ROLE } from '../test/support/vault.ts'
import { createWindow, type KillPlan, type KillRun, pairIn, randomFrom } from './kill-run.ts'

/** Another program for the same job. */
export interface Peer {
  readonly name: string
  /** Where the program is; throws when it cannot be had. */
  find(): Promise<string>
  /** Writes its config into `folder` and gives its arguments. */
  configure(job: Job): Promise<readonly string[]>
}

interface Job {
  readonly folder: string
  readonly address: string
  readonly tokenFile: string
  readonly template: string
}

/** https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent/template */
export const vaultAgent: Peer = {
  name: 'Vault Agent',
  find: () => component('vault'),
  configure: async ({ folder, address, tokenFile, template }) => {
    const config = join(folder, 'agent.hcl')
    const auth = `auto_auth {\n  method "token_file" {\n    config = { token_file_path = "${tokenFile}" }\n  }\n}\n`
    await writeFile(config, `vault {\n  address = "${address}"\n}\n${auth}${template}`)
    return ['agent', `-config=${config}`]
  },
}

/** https://github.com/hashicorp/consul-template/blob/main/docs/configuration.md */
export const consulTemplate: Peer = {
  name: 'consul-template',
  find: () => component('consul-template'),
  configure: async ({ folder, address, tokenFile, template }) => {
    const config = join(folder, 'consul-template.hcl')
    const token = await readFile(tokenFile, 'utf8')
    await writeFile(
      config,
      `vault {\n  address = "${address}"\n  token = "${token}"\n  renew_token = false\n}\n${template}`,
    )
    return [`-config=${config}`]
  },
}

/** Short enough to be renewed every few seconds: both programs count the 30 s by which Vault backdates a certificate as lived. */
const TTL = '6s'
const PATIENCE_MS = 60_000
/** Two lifetimes of a certificate. */
const HEALING_MS = 12_000

/**
 * Kills another program as `killCertferry` does: at random moments after a request for a certificate has passed. What a kill left mixed
 * is given time to heal before the next kill, so that nothing counts twice.
 */
export async function killPeer(peer: Peer, vault: TestVault, { kills, seed, onKill }: KillPlan): Promise<KillRun> {
  const program = await peer.find()
  const random = randomFrom(seed)
  const window = createWindow()
  await using rig = await createRig(peer, vault, program)
  const tally = { old: 0, new: 0, mixed: 0, mixedLater: 0 }
  await rig.first()
  for (let count = 1; count <= kills; count += 1) {
    await rig.untilAsked()
    const before = pairIn(rig.directory, 'flat')
    await sleep(random() * window.ms)
    await rig.kill()
    onKill?.()
    const found = pairIn(rig.directory, 'flat')
    tally[found === undefined ? 'mixed' : found === before ? 'old' : 'new'] += 1
    window.learn(found === before)
    if (found !== undefined || (await rig.heals())) continue
    tally.mixedLater += 1
    await rig.first()
  }
  return {
    subject: peer.name,
    seed,
    kills,
    ...tally,
    halfDone: undefined,
    issued: rig.asked(),
    extra: undefined,
    complaints: [],
  }
}

async function createRig(peer: Peer, vault: TestVault, program: string) {
  let asked = 0
  let onIssue = () => {}
  const proxy = await startFaultProxy(
    ({ url }) => {
      if (url.startsWith('/v1/pki/issue/')) {
        asked += 1
        onIssue()
      }
      return undefined
    },
    { target: vault.address },
  )
  const stage = await createStage({ vault, volumeIn: tmpdir() })
  const directory = join(stage.volume, 'web')
  // Vault refuses to make keys for a role that allows any.
  const role = `${stage.role}-ec`
  await vault.api('POST', `pki/roles/${role}`, { ...WEB_ROLE, key_type: 'ec', key_bits: 256 })
  const token = await vault.createToken({
    policy: `path "pki/issue/${role}" { capabilities = ["update"] }`,
    body: { period: '24h' },
  })
  const tokenFile = join(stage.folder, 'token')
  await writeFile(tokenFile, token, { mode: 0o600 })
  const home = join(stage.folder, 'home')
  await mkdir(home)
  const template = templateFor(directory, role)
  const args = await peer.configure({ folder: stage.folder, address: proxy.address, tokenFile, template })
  let running: ChildProcess | undefined
  const kill = async () => {
    if (!running || running.exitCode !== null || running.signalCode !== null) return
    const ended = once(running, 'exit')
    running.kill('SIGKILL')
    await ended
  }
  const start = () => {
    const child = spawn(program, args, { stdio: 'ignore', env: { PATH: process.env.PATH ?? '', HOME: home } })
    const end = () => child.kill('SIGKILL')
    process.once('exit', end)
    child.once('exit', () => process.removeListener('exit', end))
    running = child
  }

  return {
    directory,
    asked: () => asked,
    /** A set from nothing, undisturbed. */
    first: async () => {
      await kill()
      for (const name of ['tls.crt', 'tls.key', 'bundle.pem']) await rm(join(directory, name), { force: true })
      start()
      const isWhole = () => pairIn(directory, 'flat')
      await until(`${peer.name} writes its first set`, isWhole, { timeoutMs: PATIENCE_MS })
    },
    /** Starts it, and tells whether certificate and key match after a while. */
    heals: async () => {
      start()
      const isWhole = () => pairIn(directory, 'flat')
      return until('it heals', isWhole, { timeoutMs: HEALING_MS }).then(
        () => true,
        () => false,
      )
    },
    /** Starts it unless it runs, and waits until it asks for the next certificate. */
    untilAsked: async () => {
      const next = Promise.withResolvers<void>()
      onIssue = next.resolve
      if (!running || running.signalCode !== null) start()
      const given = AbortSignal.timeout(PATIENCE_MS)
      given.addEventListener('abort', () => next.reject(new Error(`${peer.name} did not ask for a certificate`)))
      await next.promise
    },
    kill,
    [Symbol.asyncDispose]: async () => {
      await kill()
      await stage[Symbol.asyncDispose]()
      await proxy[Symbol.asyncDispose]()
    },
  }
}

/** Certificate and key in files of their own, by `writeToFile`, beside a bundle of all, from which `pkiCert` knows after a restart what there is. */
function templateFor(directory: string, role: string): string {
  const request = `pkiCert "pki/issue/${role}" "common_name=${SERVER_NAME}" "ttl=${TTL}"`
  const files = [
    `{{ .Key | writeToFile "${directory}/tls.key" "" "" "0600" }}`,
    `{{ .Cert | writeToFile "${directory}/tls.crt" "" "" "0600" }}`,
  ]
  const contents = `{{ with ${request} }}{{ .Cert }}{{ .CA }}{{ .Key }}${files.join('')}{{ end }}`
  return `template {\n  contents = ${JSON.stringify(contents)}\n  destination = "${directory}/bundle.pem"\n  perms = "0600"\n}\n`
}
