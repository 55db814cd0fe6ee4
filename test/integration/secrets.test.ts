import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Certferry, commandLine } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { type FaultProxy, type SeenRequest, startFaultProxy } from '../support/fault-proxy.ts'
import { bundleOnce } from '../support/fault-rig.ts'
import { formsOf } from '../support/memory-scan.ts'
import { createStage, type Stage } from '../support/stage.ts'
import { isRecorded, recorded, recorder } from '../support/strace.ts'
import { until } from '../support/until.ts'
import { startVault, WEB_ROLE } from '../support/vault.ts'

const skip = await skipReason('vault', 'strace')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki({ roles: { ec: { ...WEB_ROLE, key_type: 'ec' } } })
const { program, remove } = await bundleOnce()
after(remove)

const DEFECT = fileURLToPath(new URL('../fixtures/defect.ts', import.meta.url))
const NAMES = ['sign', 'issue'] as const

describe('nothing that certferry ever printed, served or wrote holds a secret, but the files of a key and the requests to Vault', {
  skip,
  concurrency: 2,
}, () => {
  for (const [kind, authOptions] of Object.entries({ approle: {}, 'wrapped secret_id': { secretIdWrapped: true } }))
    test(`by strace, from the start to a crash, with ${kind}`, async (t) => {
      await using life = await startLife(authOptions)
      const { stage, proxy, certferry } = life
      await deliver(life)
      await rotate(life)
      // Vault echoes what this process sent, in a refusal and in a warning.
      const echoes = echo(life)
      proxy.onRequest = (request) =>
        isIssuing(request) ? { kind: 'answer', status: 400, body: { errors: echoes } } : undefined
      await certferry.control.rotate({ certificates: [...NAMES] })
      for (const name of NAMES)
        await certferry.certificate(name, 'is refused', ({ failures, lastError }) => failures > 0 && lastError !== null)
      await askAll(life)
      proxy.onRequest = (request) => (isIssuing(request) ? { kind: 'edit', edit: warning(echoes) } : undefined)
      await rotate(life)
      await askAll(life)
      await breakConfig(life)
      const record = await crash(life)

      const secrets = secretsOf(life)
      const places = new Map([...life.answers, ...record])
      const found = [...places].flatMap(([place, text]) =>
        secrets.filter(({ forms }) => forms.some((form) => text.includes(form))).map(({ what }) => ({ place, what })),
      )
      const toVault = (place: string) => place.endsWith(`->127.0.0.1:${new URL(proxy.address).port}]`)
      const toVolume = (place: string) => place.startsWith(`${stage.volume}/`)
      const isDue = ({ place, what }: (typeof found)[number]) => (what === 'key' ? toVolume(place) : toVault(place))
      const bytes = [...places.values()].reduce((sum, text) => sum + text.length, 0)
      t.diagnostic(`${secrets.length} secrets sought in ${bytes} bytes for ${places.size} places`)
      assert.deepEqual(
        found.filter((one) => !isDue(one)),
        [],
      )
      // Where they belong they are found, so they would be elsewhere.
      assert.deepEqual(new Set(found.map(({ what }) => what)), new Set(secrets.map(({ what }) => what)))
      for (const place of ['status', 'doctor', 'plan', 'validate', '/metrics', '/status', '/nowhere'])
        assert.ok((life.answers.get(place)?.length ?? 0) > 0, place)
      assert.ok([...record.keys()].some((place) => place === join(stage.folder, 'audit.log')))
    })
})

interface Life extends AsyncDisposable {
  readonly stage: Stage
  readonly proxy: FaultProxy
  readonly certferry: Certferry
  /** Private keys that were ever delivered, in PEM. */
  readonly keys: string[]
  readonly secretFile: string
  /** What was printed by commands and served over HTTP, by its name. */
  readonly answers: Map<string, Buffer>
  readonly logPath: string
}

async function startLife(authOptions: { secretIdWrapped?: boolean }): Promise<Life> {
  assert.ok(vault)
  await using stack = new AsyncDisposableStack()
  const proxy = stack.use(await startFaultProxy(() => undefined, { target: vault.address }))
  const policy = (mount: string, role: string) =>
    [`sign/${role}`, 'issue/ec'].map((path) => `path "${mount}/${path}" { capabilities = ["update"] }`).join('\n')
  const stage = stack.use(await createStage({ vault, program, policy, address: proxy.address, authOptions }))
  if (authOptions.secretIdWrapped) await stage.place('secret-id', await stage.approle.wrappedSecretId())
  const reload = [{ kind: 'exec', command: ['/bin/true'] }]
  const common = { served: false, more: { reload, renew: { before: '1h' } } }
  await stage.configure(
    stage.web({ ...common, name: 'sign' }),
    stage.web({ ...common, name: 'issue', source: { method: 'issue', role: 'ec' } }),
  )
  const config: object = JSON.parse(readFileSync(stage.configFile, 'utf8'))
  const more = { audit: { file: join(stage.folder, 'audit.log') }, log: { level: 'debug' } }
  await stage.place('config.yaml', JSON.stringify({ ...config, ...more }))
  const logPath = join(stage.folder, 'strace')
  const env = { NODE_OPTIONS: `--import=${DEFECT}`, DEFECT_FILE: join(stage.folder, 'defect') }
  const certferry = stack.use(stage.certferry({ before: await recorder(logPath), env }))
  const owned = stack.move()
  return {
    stage,
    proxy,
    certferry,
    keys: [],
    secretFile: readFileSync(join(stage.folder, 'secret-id'), 'utf8'),
    answers: new Map(),
    logPath,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

async function deliver({ certferry, stage, keys }: Life, before: readonly (string | null)[] = []) {
  for (const name of NAMES) {
    await certferry.certificate(
      name,
      'is delivered',
      ({ serial, phase, failures }) =>
        serial !== null && phase === 'ACTIVE' && failures === 0 && !before.includes(serial),
    )
    keys.push(readFileSync(join(stage.volume, name, 'tls.key'), 'utf8'))
  }
}

async function rotate(life: Life) {
  const { certificates } = await life.certferry.status()
  await life.certferry.control.rotate({ certificates: [...NAMES] })
  await deliver(
    life,
    certificates.map(({ serial }) => serial),
  )
}

const isIssuing = ({ url }: SeenRequest) => /\/(?:sign|issue)\//.test(url)

/** What certferry sent to authenticate itself, as the proxy saw it. */
function credentialsOf({ proxy, secretFile }: Life): readonly string[] {
  const tokens = proxy.requests.map(({ headers }) => headers['x-vault-token']).filter((token) => token !== undefined)
  const secretIds = proxy.requests
    .map(({ body }) => /"secret_id":"([^"]+)"/.exec(body)?.[1])
    .filter((id) => id !== undefined)
  return [...new Set([...tokens.flat(), ...secretIds, secretFile.trim()])]
}

const encodings = (secret: string): readonly string[] => [
  secret,
  Buffer.from(secret).toString('base64').replace(/=+$/, ''),
  Buffer.from(secret).toString('base64url'),
  Buffer.from(secret).toString('hex'),
  encodeURIComponent(secret),
]

/** What a Vault says that tells everything it was told, and a key. */
const echo = (life: Life): readonly string[] => [
  ...credentialsOf(life).flatMap((secret) => encodings(secret).map((text) => `refused: ${text}`)),
  ...life.keys,
]

const warning = (warnings: readonly string[]) => (body: string) => {
  const answer: object = JSON.parse(body)
  return JSON.stringify({ ...answer, warnings })
}

/** Whatever a person or a monitor may ask. */
async function askAll({ stage, certferry, answers, proxy }: Life): Promise<void> {
  const file = ['-c', stage.configFile]
  const commands = { status: [], plan: [], validate: [], doctor: [] }
  for (const command of Object.keys(commands)) answers.set(command, await printed(command, ...file))
  answers.set('status --json', await printed('status', '--json', ...file))
  const token = proxy.requests.map(({ headers }) => headers['x-vault-token']).find((one) => one !== undefined)
  for (const path of ['/metrics', '/status', '/livez', '/readyz', '/nowhere']) {
    const { status, body } = await certferry.get(`${path}?token=${token}`)
    answers.set(path, Buffer.from(`${status} ${body}`))
  }
}

/** Standard output and error of a command, however it ends. */
const printed = (...args: readonly string[]) =>
  new Promise<Buffer>((resolve) => {
    const options = { env: { PATH: process.env.PATH ?? '' } }
    execFile(process.execPath, commandLine(program, ...args), options, (_error, stdout, stderr) =>
      resolve(Buffer.from(stdout + stderr)),
    )
  })

/** A config with a secret in the wrong places is refused, by the one that runs and by the commands. */
async function breakConfig(life: Life): Promise<void> {
  const { stage, certferry, answers } = life
  const [secret = ''] = credentialsOf(life)
  const good = readFileSync(stage.configFile, 'utf8')
  const config: object = JSON.parse(good)
  const auth = { kind: 'token', token: [secret], tokenFile: 7, secretId: secret }
  await stage.place('config.yaml', JSON.stringify({ ...config, vault: { address: life.proxy.address, auth } }))
  certferry.send('SIGHUP')
  await until('the config is refused', () => certferry.log().some(({ event }) => event === 'config.rejected'))
  for (const command of ['validate', 'plan', 'doctor'])
    answers.set(`${command} of a broken config`, await printed(command, '-c', stage.configFile))
  await stage.place('config.yaml', good)
}

/** Ends it by a defect that has a secret in its message; gives what it told in all its life. */
async function crash(life: Life): Promise<ReadonlyMap<string, Buffer>> {
  const { stage, certferry, logPath } = life
  await stage.place('defect', `throw ${credentialsOf(life).find((secret) => secret.startsWith('hvs.'))}`)
  assert.equal((await certferry.ended).code, 70)
  await until('the record is complete', () => isRecorded(logPath, certferry.pid))
  return recorded(logPath)
}

interface Sought {
  readonly what: 'credential' | 'key'
  readonly forms: readonly (string | Buffer)[]
}

function secretsOf(life: Life): readonly Sought[] {
  const credentials = credentialsOf(life).map((secret) => ({ what: 'credential', forms: encodings(secret) }) as const)
  const keys = life.keys.map((pem) => ({ what: 'key', forms: Object.values(formsOf(pem)).flat() }) as const)
  assert.ok(credentials.length >= 2 && keys.length === 3 * NAMES.length)
  return [...credentials, ...keys]
}
