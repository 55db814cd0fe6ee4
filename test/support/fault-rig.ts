import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fingerprintOf } from '../../src/core/bundle.ts'
import type { CertificateStatus } from '../../src/observe/status.ts'
import type { Layout } from '../../src/outputs/output.ts'
import { handshake } from '../../src/verifiers/handshake.ts'
import { bundleCli } from '../../tools/build.ts'
import type { Certferry, StartOptions } from './certferry.ts'
import { type FaultProxy, type ProxyOptions, startFaultProxy } from './fault-proxy.ts'
import type { Nginx, NginxOptions } from './nginx.ts'
import { createStage, SERVER_NAME, type Stage, type StageOptions, type WebOptions } from './stage.ts'
import { until } from './until.ts'
import type { StagedVault } from './vault.ts'
import { assertTidy, readPair } from './volume.ts'

/** Everything one certificate needs, real and in service: `certferry run` proven by an nginx, with a tap on the way to Vault. */
export interface Rig extends AsyncDisposable {
  readonly vault: StagedVault
  readonly stage: Stage
  /** Every request to Vault passes here; `onRequest` makes faults of it. */
  readonly proxy: FaultProxy
  readonly certferry: Certferry
  /** undefined where somebody else serves, or nobody. */
  readonly nginx: Nginx | undefined
  /** Whether anybody serves. */
  readonly isServed: boolean
  readonly layout: Layout
  /** What readers see. */
  readonly directory: string
}

export interface RigOptions {
  readonly vault: StagedVault
  /** The bundle that runs; see {@link bundleOnce}. */
  readonly program: string
  /** Where it depends on the stage, made from it. */
  readonly web?: WebOptions | ((stage: Stage) => WebOptions)
  readonly nginx?: WebOptions & NginxOptions
  /** Starts whoever serves instead of nginx, once the first certificate is on disk. */
  readonly serve?: (stage: Stage) => Promise<AsyncDisposable>
  readonly certferry?: Partial<StartOptions>
  /** Where the volume is to be; in memory unless given. */
  readonly volumeIn?: string
  readonly stage?: Pick<StageOptions, 'address' | 'mount' | 'policy' | 'approle' | 'authOptions' | 'vaultOptions'>
  readonly proxy?: ProxyOptions
  /** What happens to the stage before certferry starts, such as another policy. */
  readonly prepare?: (stage: Stage) => Promise<void>
}

/**
 * Short enough that no pause between two tries is longer than ten seconds (a twentieth of the life left, at least ten), long enough that no
 * renewal comes due while a test runs.
 */
const LIFE = { ttl: '100s', more: { renew: { before: '10s', jitter: 0 } } } as const

/** A rig whose first certificate is proven to be served, or delivered where nobody serves. */
export async function createRig({
  vault,
  program,
  web = {},
  nginx,
  serve,
  certferry,
  volumeIn,
  prepare,
  ...more
}: RigOptions): Promise<Rig> {
  await using stack = new AsyncDisposableStack()
  const proxy = stack.use(await startFaultProxy(() => undefined, { target: vault.address, ...more.proxy }))
  const place = { address: proxy.address, ...(volumeIn && { volumeIn }), ...more.stage }
  const stage = stack.use(await createStage({ vault, program, ...place }))
  const asked = typeof web === 'function' ? web(stage) : web
  const options = { ...LIFE, ...asked, more: { ...LIFE.more, ...asked.more } }
  const { layout = 'nginx-include', served = true } = options
  await prepare?.(stage)
  await stage.configure(stage.web(options))
  const running = stack.use(stage.certferry(certferry))
  await running.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  if (serve) stack.use(await serve(stage))
  const server = served && !serve ? stack.use(await stage.nginx({ layout, ...nginx })) : undefined
  await running.certificate('web', 'is in service', isWell)
  const owned = stack.move()
  return {
    vault,
    stage,
    proxy,
    certferry: running,
    nginx: server,
    isServed: served,
    layout,
    directory: join(stage.volume, 'web'),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

// Each part of a rig ends when the tests end, however they do, and several rigs run at a time.
process.setMaxListeners(100)

/** Bundles the command line into a folder of its own; `remove` it at the end. It is what ships, and starts sooner than the sources. */
export async function bundleOnce(): Promise<{ readonly program: string; readonly remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-program-'))
  await bundleCli(folder)
  return { program: join(folder, 'cli.cjs'), remove: () => rm(folder, { recursive: true, force: true }) }
}

/** A fault, and what is to be seen of it. What is left out is the baseline: the old set stays, is served, and is told as DEGRADED. */
export interface FaultPlan {
  /** The code that log, status and metrics are to give, in lower case; one of several where which one comes first is a matter of luck. */
  readonly reason: string | readonly string[]
  readonly inject: (rig: Rig) => void | Promise<void>
  /** Removes the cause, and does nothing else: certferry is to recover by itself. */
  readonly repair: (rig: Rig) => void | Promise<void>
  /** What makes certferry meet the fault: by default somebody asks for a rotation. */
  readonly trigger?: (rig: Rig) => void | Promise<void>
  /** While the fault lasts: the set readers find, what clients get, what the status says. */
  readonly meanwhile?: {
    /** `away` where the fault itself is what readers find. */
    readonly files?: 'old' | 'new' | 'away'
    /** `unsteady`: now this, now that, so that nothing can be claimed. */
    readonly served?: 'old' | 'new' | 'down' | 'unsteady'
    readonly phase?: CertificateStatus['phase']
    /** Further claims, once the ones above hold. */
    readonly also?: (story: Story) => void | Promise<void>
  }
  readonly afterwards?: {
    /** Whether the recovery brings a new certificate (the default), or keeps the one there was. */
    readonly set?: 'old' | 'new'
    /** Certificates issued over the whole story, the first one included: 2 where a new one is delivered. Least and most, where tries that fail are issued for. */
    readonly issued?: number | readonly [least: number, most: number]
    readonly also?: (story: Story) => void | Promise<void>
  }
}

/** What a fault went like. */
export interface Story {
  readonly rig: Rig
  /** Before the fault. */
  readonly old: CertificateStatus
  /** During it, once it was told as planned. */
  readonly held: CertificateStatus
}

/**
 * Injects one fault and follows it to the end. Asserts, while it lasts and after its cause is gone: (1) files, by hash, mode, owner and
 * inode; (2) what clients are served; (3) phase and readiness; (4) metrics and log line with the reason, and no secret among them;
 * (5) that the repair alone brings ACTIVE back in the same process, with as many certificates issued as planned.
 */
export async function survive(rig: Rig, plan: FaultPlan): Promise<Story> {
  const { certferry } = rig
  const { meanwhile = {}, afterwards = {} } = plan
  const reasons = [plan.reason].flat()
  const old = await certferry.certificate('web', 'is in service before the fault', isWell)
  const filesBefore = filesOf(rig)
  await plan.inject(rig)
  await (plan.trigger ?? askForRotation)(rig)

  const { phase = 'DEGRADED' } = meanwhile
  const held = await certferry.certificate(
    'web',
    `is ${phase} with ${reasons.join(' or ')}`,
    (status) => status.phase === phase && reasons.includes(status.reason ?? ''),
  )
  const { files = 'old' } = meanwhile
  const isOld = files !== 'new'
  if (files === 'old') assert.deepEqual(filesOf(rig), filesBefore, 'what readers find is untouched')
  if (files === 'new')
    assert.equal(readPair(rig.directory, rig.layout), held.fingerprint, 'readers find the set that the status names')
  assert.equal(held.serial === old.serial, isOld, 'the certificate on disk')
  await assertServed(rig, meanwhile.served ?? 'old', old)
  await assertProbes(certferry, phase)
  await assertTold(rig, held, reasons)
  await meanwhile.also?.({ rig, old, held })

  await plan.repair(rig)
  const wantsNew = (afterwards.set ?? 'new') === 'new'
  const well = await certferry.certificate(
    'web',
    'recovers by itself',
    (status) => isWell(status) && (status.serial !== old.serial) === wantsNew,
  )
  assert.equal(readPair(rig.directory, rig.layout), well.fingerprint, 'the disk holds what the status tells')
  assertTidy(rig.directory)
  if (rig.isServed) assert.equal(await servedBy(rig.stage), well.fingerprint, 'clients get what is on disk')
  await assertProbes(certferry, 'ACTIVE')
  assert.ok(certferry.log('rotation.recovered').length > 0, 'the recovery is told')
  assert.equal(certferry.log('sidecar.started').length, 1, 'one process from beginning to end')
  const [least, most = least] = [afterwards.issued ?? (wantsNew ? 2 : 1)].flat()
  const issued = await rig.stage.issued()
  assert.ok(issued >= (least ?? 0) && issued <= (most ?? 0), `${issued} certificates issued`)
  await afterwards.also?.({ rig, old, held })
  return { rig, old, held }
}

/** Delivered, and proven where anybody is there to prove it. */
export const isWell = ({ phase, verified, failures, reason }: CertificateStatus): boolean =>
  phase === 'ACTIVE' && failures === 0 && reason === null && (verified === 'verified' || verified === 'none')

export async function askForRotation({ certferry }: Pick<Rig, 'certferry'>): Promise<void> {
  await certferry.control.rotate({ certificates: ['web'] })
}

/** What needs a person is tried after half a minute at first; here somebody asks again and again, until it has failed three times. */
export async function askThrice({ certferry }: Pick<Rig, 'certferry'>): Promise<void> {
  for (let times = 1; times <= 3; times += 1) {
    await askForRotation({ certferry })
    await untilFailed(certferry, times)
  }
}

/**
 * For faults that make a certificate of no use: it comes due by itself 15 s after it was issued, since what somebody asks for by hand is
 * issued only once. A slow machine may come due once more on its way.
 */
export const DUE_SOON: WebOptions = { more: { renew: { before: '85s', jitter: 0 } } }
export const BY_ITSELF = { trigger: () => undefined, afterwards: { issued: [3, 12] } } as const

/** One rotation that goes well; gives the certificate it ended with. */
export async function rotateWell({ certferry }: Pick<Rig, 'certferry'>): Promise<CertificateStatus> {
  const { serial } = await certferry.certificate('web', 'is in service', isWell)
  await askForRotation({ certferry })
  return certferry.certificate('web', 'has a new one', (status) => isWell(status) && status.serial !== serial)
}

export const assertNoFailure = ({ certferry }: Pick<Rig, 'certferry'>): void =>
  assert.deepEqual(certferry.log('rotation.failed'), [], 'nothing failed')

/**
 * Every name readers use, with what they find behind it: content by hash, mode, owner, inode and time of the last change. Names of
 * certferry's own (`..`) may change as it works.
 */
export function filesOf({ directory }: Pick<Rig, 'directory'>): Record<string, string> {
  const names = fs.readdirSync(directory).filter((name) => !name.startsWith('..'))
  return Object.fromEntries(names.map((name) => [name, describe(join(directory, name))]))
}

function describe(path: string): string {
  const link = fs.lstatSync(path).isSymbolicLink() ? fs.readlinkSync(path) : ''
  const { mode, uid, gid, ino, mtimeNs } = fs.statSync(path, { bigint: true })
  const hash = createHash('sha256').update(fs.readFileSync(path)).digest('hex')
  return [link, mode.toString(8), uid, gid, ino, mtimeNs, hash].join(' ')
}

const never = new AbortController().signal

/** Fingerprint of what a client gets; undefined when nobody answers. */
export async function servedBy({ port }: Pick<Stage, 'port'>): Promise<string | undefined> {
  const look = await handshake({ host: '127.0.0.1', port, serverName: SERVER_NAME, timeoutMs: 5_000 }, never)
  return look.up ? fingerprintOf(look.chain[0]) : undefined
}

type Served = NonNullable<NonNullable<FaultPlan['meanwhile']>['served']>

async function assertServed({ isServed, stage }: Rig, wanted: Served, old: CertificateStatus) {
  if (!isServed || wanted === 'unsteady') return
  const served = await servedBy(stage)
  if (wanted === 'down') return assert.equal(served, undefined, 'nobody is served')
  assert.ok(served, 'clients are served')
  assert.equal(served === old.fingerprint, wanted === 'old', 'what clients are served')
}

/** Alive whatever happens; ready while a valid set is on disk. */
async function assertProbes(certferry: Certferry, phase: CertificateStatus['phase']) {
  assert.equal((await certferry.get('/livez')).status, 200, 'live')
  const isReady = phase === 'ACTIVE' || phase === 'DEGRADED'
  assert.equal((await certferry.get('/readyz')).status, isReady ? 200 : 503, 'ready')
  assert.equal(await certferry.metric(`certferry_certificate_phase{certificate="web",phase="${phase}"}`), 1)
}

async function assertTold({ certferry, stage }: Rig, held: CertificateStatus, reasons: readonly string[]) {
  const counts = await Promise.all(
    reasons.map((reason) =>
      certferry.metric(`certferry_rotation_total{certificate="web",result="error",reason="${reason}"}`),
    ),
  )
  assert.ok(
    counts.some((count) => (count ?? 0) >= 1),
    `certferry_rotation_total tells ${reasons}`,
  )
  const failed = certferry.log('rotation.failed').filter(({ reason }) => reason === held.reason)
  assert.ok(failed.length > 0, 'the log gives the reason')
  for (const line of failed) {
    assert.equal(line.level, 'warn')
    assert.ok(
      line.detail && line.hint && line.next && line.stage,
      `the line says what, what to do and when: ${JSON.stringify(line)}`,
    )
  }
  assertNoSecret(`${JSON.stringify(certferry.log())}\n${certferry.stderr()}\n${JSON.stringify(held)}`, stage)
}

/** Neither what certferry logs in with, nor a token of Vault, nor a private key. */
export function assertNoSecret(text: string, { folder }: Pick<Stage, 'folder'>): void {
  const delivered = join(folder, 'secret-id')
  // That there is none may be the fault.
  const secretId = (fs.existsSync(delivered) && fs.readFileSync(delivered, 'utf8').trim()) || 'no secret_id'
  for (const [what, pattern] of [
    ['the secret_id', secretId],
    ['a token', /\bhv[sb]\.[\w-]{20,}/],
    ['a private key', 'PRIVATE KEY-----'],
  ] as const)
    assert.ok(typeof pattern === 'string' ? !text.includes(pattern) : !pattern.test(text), `${what} is told`)
}

/** Waits until certferry has tried so often that a further try would show. */
export const untilFailed = (certferry: Certferry, times: number) =>
  until(`${times} failures are told`, () => certferry.log('rotation.failed').length >= times)
