import { setTimeout as sleep } from 'node:timers/promises'
import { startVault, type TestVault } from '../test/support/vault.ts'
import { randomFrom } from './kill-run.ts'
import { type Renewals, renewalsIn } from './soak-renewals.ts'
import { createSoakRig, type SoakRig } from './soak-rig.ts'
import { type Sample, take } from './soak-sample.ts'
import { type Growth, growthOf } from './soak-verdict.ts'
import { startClients, startObserver } from './watchers.ts'

export interface SoakPlan {
  /** The bundle that runs. */
  readonly program: string
  readonly certificates: number
  readonly minutes: number
  /** Decides when Vault is restarted, and for how long it is away. */
  readonly seed: number
  /** Ends the run sooner. */
  readonly stop: AbortSignal
  readonly onProgress: (line: string) => void
}

/** What a long run came to. */
export interface SoakRun {
  /** From when on all were served to the end, and the part of it that the slopes are taken from. */
  readonly minutes: number
  readonly measuredMinutes: number
  readonly growth: readonly Growth[]
  readonly renewals: Renewals
  readonly restarts: number
  /** How long Vault was away in all. */
  readonly awaySeconds: number
  /** Rotations that ended in the proof, and tries that failed, by reason. */
  readonly rotations: number
  readonly failures: Readonly<Record<string, number>>
  /** By Vault's audit log; those written; and how many there should be by the rule for renewal. */
  readonly issued: number
  readonly written: number
  readonly expected: readonly [number, number]
  /** Reloads of nginx: one may serve several certificates. */
  readonly reloads: number
  readonly handshakes: number
  readonly failed: number
  readonly expiredServed: number
  readonly slowestMs: number
  readonly pairsRead: number
  readonly mismatched: number
  /** Share of one processor that certferry used. */
  readonly cpu: number
  /** Everything that is not as promised; empty when all is well. */
  readonly complaints: readonly string[]
}

const TTL = '60s'
const LIFETIME_MS = 60_000
/** By default at half of the lifetime, and up to a tenth of it sooner. */
const RENEWED = [0.4, 0.5] as const
const SAMPLE_MS = 5_000
const PROGRESS_MS = 30_000
/** Vault is restarted so long after it came back, and away for so long, ms. */
const BETWEEN_RESTARTS = [120_000, 240_000] as const
const AWAY = [1_000, 6_000] as const
/** Requests that certferry sends at the same time: so many answers a restart of Vault may swallow. */
const CONCURRENCY = 8
/** What V8, malloc and the pools take until they have had some of everything: rotations of each, then a while at the pace of the run. */
const WARM_UP = { rounds: 30, share: 1 / 4, mostMs: 240_000 }

/** Certificates of a minute, served by one nginx, kept fresh by one certferry, while Vault is restarted every few minutes. */
export async function soak({ program, certificates, minutes, seed, stop, onProgress }: SoakPlan): Promise<SoakRun> {
  await using vault = await startVault({ storage: 'raft' })
  await vault.setupPki()
  await using rig = await createSoakRig({ vault, program, certificates, ttl: TTL })
  const { stage, certferry, serverNames, directories } = rig
  await warmUp(rig, stop, onProgress)
  const load = { port: stage.port, serverNames, caFile: stage.caFile, clients: 2, pauseMs: 20 }
  await using clients = await startClients(load)
  await using observer = await startObserver(directories, ['nginx-include'])
  const [startedAt, startedOn] = [performance.now(), Date.now()]
  const issuedBefore = await stage.issued()
  const startedCpu = await certferry.metric('process_cpu_seconds_total')
  const over = AbortSignal.any([stop, AbortSignal.timeout(minutes * 60_000)])
  const [samples, outages] = await Promise.all([
    watch(rig, over, onProgress),
    restartNowAndThen(vault, randomFrom(seed), over),
  ])
  const [endedAt, endedOn] = [performance.now(), Date.now()]
  const cpuSeconds = ((await certferry.metric('process_cpu_seconds_total')) ?? 0) - (startedCpu ?? 0)
  const expired = (await certferry.status()).certificates.filter(({ phase }) => phase === 'EXPIRED')
  await certferry.stop()
  const [seen, pairs] = [await clients.finish(), await observer.finish()]
  const issued = (await stage.issued()) - issuedBefore
  const log = certferry.log().filter(({ time }) => Date.parse(time) >= startedOn)
  const count = (event: string) => log.filter((line) => line.event === event).length
  const warmUpMs = Math.min((endedAt - startedAt) * WARM_UP.share, WARM_UP.mostMs)
  const measured = samples.filter(({ at }) => at >= startedAt + warmUpMs)
  const rotationsPerHour = (count('rotation.finished') / (endedAt - startedAt)) * 3_600_000
  const run = {
    minutes: (endedAt - startedAt) / 60_000,
    measuredMinutes: (endedAt - startedAt - warmUpMs) / 60_000,
    growth: growthOf(measured, rotationsPerHour),
    renewals: renewalsIn({ ...seen, log, lifetimeMs: LIFETIME_MS, from: startedOn, to: endedOn }),
    restarts: outages.length,
    awaySeconds: outages.reduce((sum, ms) => sum + ms, 0) / 1000,
    rotations: count('rotation.finished'),
    failures: Object.fromEntries(
      [
        ...Map.groupBy(
          log.filter(({ event }) => event === 'rotation.failed'),
          ({ reason }) => String(reason),
        ),
      ].map(([reason, lines]) => [reason, lines.length]),
    ),
    issued,
    written: count('certificate.written'),
    expected: expectedIssues(certificates, endedOn - startedOn),
    reloads: count('reload.finished'),
    handshakes: seen.made,
    failed: seen.failed,
    expiredServed: seen.expired,
    slowestMs: seen.slowestMs,
    pairsRead: pairs.reads,
    mismatched: pairs.mismatched,
    cpu: (cpuSeconds / (endedAt - startedAt)) * 1000,
  }
  return {
    ...run,
    complaints: [
      ...seen.failures.map((why) => `a handshake failed: ${why}`),
      ...pairs.complaints.map((why) => `a mismatched pair: ${why}`),
      ...expired.map(({ name }) => `${name} is EXPIRED at the end`),
      ...log
        .filter(({ event, to }) => event === 'certificate.phase' && to === 'EXPIRED')
        .map(({ certificate, time }) => `${certificate} was EXPIRED at ${time}`),
      ...log.filter(({ event }) => event === 'internal.error').map((line) => `a defect: ${JSON.stringify(line)}`),
      ...(certferry.stderr() === '' ? [] : [`certferry wrote to standard error: ${certferry.stderr()}`]),
      ...run.growth.filter(({ isFlat }) => !isFlat).map(({ name }) => `${name}: not flat`),
      ...issueTrouble(run, certificates),
      ...renewalTrouble(run.renewals),
    ],
  }
}

async function warmUp({ certferry }: SoakRig, stop: AbortSignal, onProgress: (line: string) => void): Promise<void> {
  for (let round = 1; round <= WARM_UP.rounds && !stop.aborted; round += 1) {
    await certferry.control.rotate({ certificates: 'all', wait: true })
    if (round % 10 === 0) onProgress(`warming up: each was rotated ${round} times`)
  }
}

async function watch(rig: SoakRig, over: AbortSignal, onProgress: (line: string) => void): Promise<Sample[]> {
  const samples: Sample[] = []
  const startedAt = performance.now()
  for (let toldAt = startedAt; !over.aborted; ) {
    const sample = await take(rig)
    samples.push(sample)
    if (sample.at - toldAt >= PROGRESS_MS) {
      toldAt = sample.at
      const { 'anonymous memory': anonymous = 0, 'file descriptors': descriptors } = sample.series
      const [done, failed] = [
        rig.certferry.log('rotation.finished').length,
        rig.certferry.log('rotation.failed').length,
      ]
      onProgress(
        `${((sample.at - startedAt) / 60_000).toFixed(1)} min: ${done} rotations, ${failed} failed tries, ` +
          `${(anonymous / 2 ** 20).toFixed(1)} MiB anonymous, ${descriptors} descriptors`,
      )
    }
    await sleep(SAMPLE_MS, undefined, { signal: over }).catch(() => {})
  }
  return samples
}

/** Gives how long Vault was away each time, ms. */
async function restartNowAndThen(vault: TestVault, random: () => number, over: AbortSignal): Promise<number[]> {
  const between = ([least, most]: readonly [number, number]) => least + random() * (most - least)
  const outages: number[] = []
  for (;;) {
    await sleep(between(BETWEEN_RESTARTS), undefined, { signal: over }).catch(() => {})
    if (over.aborted) return outages
    const startedAt = performance.now()
    await vault.restart({ downMs: between(AWAY) })
    outages.push(performance.now() - startedAt)
  }
}

/** The renewals by the rule, without any delay, at its latest and at its earliest. */
function expectedIssues(certificates: number, ms: number): readonly [number, number] {
  const [earliest, latest] = RENEWED
  const by = (share: number) => certificates * (ms / (LIFETIME_MS * share))
  return [Math.floor(by(latest)), Math.ceil(by(earliest))]
}

/** Certificates that Vault issued and nobody received are those whose answer a restart, or the end, cut off. Slower than the rule is a delay; but not by a fifth. */
function issueTrouble(
  run: Pick<SoakRun, 'issued' | 'written' | 'expected' | 'restarts'>,
  certificates: number,
): string[] {
  const { issued, written, expected, restarts } = run
  const [least, most] = expected
  const lost = issued - written
  return [
    ...(lost < 0 || lost > CONCURRENCY * (restarts + 1) ? [`${issued} were issued, and ${written} written`] : []),
    ...(issued < least * 0.8 - certificates || issued > most + certificates
      ? [`${issued} were issued, where ${least} to ${most} should be`]
      : []),
  ]
}

/** Times of issue are known to a second, on both sides, and the lifetime counts from receipt. */
const RESOLUTION = 2_000 / LIFETIME_MS
const DRIFT = 0.01

function renewalTrouble({ first, last, least }: Renewals): string[] {
  const drift = Math.abs(last.ratio - first.ratio)
  const error = Math.hypot(first.error, last.error)
  return [
    ...(least < RENEWED[0] - RESOLUTION ? [`a renewal came after ${least.toFixed(3)} of the lifetime`] : []),
    ...(drift > DRIFT && drift > 3 * error
      ? [`renewals drift: ${first.ratio.toFixed(3)} of the lifetime at first, ${last.ratio.toFixed(3)} at last`]
      : []),
  ]
}
