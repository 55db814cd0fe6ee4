import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { Layout } from '../src/outputs/output.ts'
import { commandLine } from '../test/support/certferry.ts'
import { SERVER_NAME, type Stage } from '../test/support/stage.ts'
import { type Sighting, startClients, startObserver } from './watchers.ts'

export interface RotationPlan {
  /** How many times `certferry rotate web --wait` is run. */
  readonly count: number
  readonly layout: Exclude<Layout, 'flat'>
  /** How many clients connect at the same time, each without pause. */
  readonly clients: number
  readonly onRotation?: (done: number) => void
}

/** What a run of rotations under load came to. */
export interface RotationRun {
  readonly layout: Layout
  readonly rotations: number
  readonly handshakes: number
  readonly failed: number
  /** The slowest handshake, ms. */
  readonly slowestMs: number
  readonly pairsRead: number
  readonly mismatched: number
  readonly issued: number
  readonly seconds: number
  /** From the request to the proof, median and longest, in ms. */
  readonly medianMs: number
  readonly longestMs: number
  /** Everything that is not as promised; empty when all is well. */
  readonly complaints: readonly string[]
}

/**
 * Rotates a certificate again and again while clients in a process of their own open TLS connections without pause, and an observer in
 * another compares certificate and key on disk. Everything is real: Vault, nginx with two workers, certferry and its command line.
 */
export async function rotateUnderLoad(
  stage: Stage,
  { count, layout, clients, onRotation }: RotationPlan,
): Promise<RotationRun> {
  await stage.configure(stage.web({ layout, verify: { workers: 2 } }))
  await using certferry = stage.certferry()
  const { serial: first } = await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await using _nginx = await stage.nginx({ layout })
  await certferry.certificate('web', 'is proven to be served', ({ verified }) => verified === 'verified')

  const observed = layout === 'nginx-include' ? ['nginx-include', 'generation'] : ['generation']
  const { port, caFile } = stage
  await using load = await startClients({ port, serverNames: [SERVER_NAME], caFile, clients })
  await using observer = await startObserver([`${stage.volume}/web`], observed)
  const rotations: Rotation[] = []
  const startedAt = performance.now()
  for (let done = 1; done <= count; done += 1) {
    rotations.push(await rotate(stage))
    onRotation?.(done)
  }
  const seconds = (performance.now() - startedAt) / 1000
  const [seen, pairs] = [await load.finish(), await observer.finish()]
  const written = certferry.log('certificate.written').map(({ serial }) => String(serial))
  const issued = await stage.issued()
  const took = rotations.map(({ tookMs }) => tookMs).sort((a, b) => a - b)
  return {
    layout,
    rotations: rotations.length,
    handshakes: seen.made,
    failed: seen.failed,
    slowestMs: seen.slowestMs,
    pairsRead: pairs.reads,
    mismatched: pairs.mismatched,
    issued,
    seconds,
    medianMs: took[took.length >> 1] ?? 0,
    longestMs: took.at(-1) ?? 0,
    complaints: [
      ...seen.failures.map((why) => `a handshake failed: ${why}`),
      ...pairs.complaints.map((why) => `a mismatched pair: ${why}`),
      ...(pairs.fingerprints.length < count ? [`the observer saw only ${pairs.fingerprints.length} pairs`] : []),
      ...(issued === count + 1 ? [] : [`${issued} certificates were issued for ${count} rotations and the first one`]),
      ...orderTrouble([first ?? '', ...rotations.map(({ serial }) => serial)], seen.sightings),
      ...seen.sightings
        .filter(({ serial }) => !written.includes(serial))
        .map(({ serial }) => `${serial} was served, but never written`),
      ...staleTrouble(rotations, seen.sightings),
    ],
  }
}

interface Rotation {
  readonly serial: string
  readonly tookMs: number
  /** When the command said that it is served, ms since 1970. */
  readonly provenAt: number
}

const run = promisify(execFile)

/** The command as a person types it; it ends with 0 only after the proof. */
async function rotate({ configFile }: Stage): Promise<Rotation> {
  const startedAt = performance.now()
  const args = commandLine(undefined, 'rotate', 'web', '--wait', '-c', configFile)
  const { stdout } = await run(process.execPath, [...args], { env: { PATH: process.env.PATH ?? '' } })
  const provenAt = performance.timeOrigin + performance.now()
  const serial = /rotated, serial ([0-9a-f]+)/.exec(stdout)?.[1]
  if (serial === undefined) throw new Error(`certferry rotate printed: ${stdout}`)
  return { serial, tookMs: performance.now() - startedAt, provenAt }
}

/** The clients met every certificate, for the first time in the order in which they were issued. */
function orderTrouble(wanted: readonly string[], sightings: readonly Sighting[]): string[] {
  const met = sightings.toSorted((a, b) => a.first - b.first).map(({ serial }) => serial)
  const missed = wanted.filter((serial) => !met.includes(serial)).map((serial) => `no client ever met ${serial}`)
  const wrong = met.findIndex((serial, index) => serial !== wanted.filter((one) => met.includes(one))[index])
  return wrong === -1 ? missed : [...missed, `certificate ${met[wrong]} was met out of order`]
}

/** Once a rotation is proven, no new connection meets an older certificate. */
function staleTrouble(rotations: readonly Rotation[], sightings: readonly Sighting[]): string[] {
  return rotations.flatMap(({ provenAt }, index) => {
    const older = rotations.slice(0, index).map(({ serial }) => serial)
    return sightings
      .filter(({ serial, last }) => older.includes(serial) && last > provenAt)
      .map(({ serial }) => `${serial} was still served after rotation ${index + 1} was proven`)
  })
}
