import { existsSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MANIFEST_FILE } from '../src/outputs/manifest.ts'
import type { Layout } from '../src/outputs/output.ts'
import type { Certferry } from '../test/support/certferry.ts'
import { startFaultProxy } from '../test/support/fault-proxy.ts'
import { createStage } from '../test/support/stage.ts'
import type { TestVault } from '../test/support/vault.ts'
import { assertTidy, generationsIn, readPair } from '../test/support/volume.ts'
import { createWindow, type KillPlan, type KillRun, pairIn, randomFrom } from './kill-run.ts'

export interface CertferryPlan extends KillPlan {
  readonly layout: Layout
  /** The bundle that ships. */
  readonly program: string
  readonly vault: TestVault
}

/** One kill in so many hits the start instead of a rotation. */
const STARTS = 4
const START_MS = 400

/**
 * Kills certferry with SIGKILL, again and again, at random moments of its start and of rotations, and looks at the disk before and after
 * the next start. Each rotation is asked for over the control socket, so whatever else is issued is too much.
 */
export async function killCertferry(plan: CertferryPlan): Promise<KillRun> {
  const { layout, kills, seed, onKill } = plan
  const random = randomFrom(seed)
  const window = createWindow()
  await using rig = await createRig(plan)
  const { directory } = rig
  const tally = { old: 0, new: 0, mixed: 0, halfDone: 0, mixedLater: 0 }
  const complaints: string[] = []
  let asked = 1
  let before = await rig.deliver(() => 'the first start', complaints)
  for (let count = 1; count <= kills; count += 1) {
    const isAtStart = random() * STARTS < 1
    const afterMs = random() * (isAtStart ? START_MS : window.ms)
    const where = () =>
      `${layout}, seed ${seed}, kill ${count}, ${afterMs.toFixed(1)} ms into a ${isAtStart ? 'start' : 'rotation'}`
    if (isAtStart) await rig.killStart(afterMs)
    else {
      await rig.killRotation(afterMs)
      asked += 1
    }
    onKill?.()
    const found = pairIn(directory, layout)
    tally[found === undefined ? 'mixed' : found === before ? 'old' : 'new'] += 1
    if (isHalfDone(directory)) tally.halfDone += 1
    if (!isAtStart) window.learn(found === before)
    if (found === undefined && layout !== 'flat') complaints.push(`${where()}: a mixed pair`)
    before = await rig.deliver(where, complaints)
    if (pairIn(directory, layout) === undefined) tally.mixedLater += 1
  }
  const issued = await rig.stage.issued()
  if (issued > asked) complaints.push(`${layout}, seed ${seed}: ${issued} issued, ${asked} asked for`)
  return {
    subject: `certferry, ${layout}`,
    seed,
    kills,
    ...tally,
    issued,
    extra: Math.max(issued - asked, 0),
    complaints,
  }
}

/** A stage with a tap on the way to Vault, that tells when a certificate is asked for. */
async function createRig({ vault, layout, program }: CertferryPlan) {
  let onIssue = () => {}
  const proxy = await startFaultProxy(
    ({ url }) => {
      if (url.startsWith('/v1/pki/sign/')) onIssue()
      return undefined
    },
    { target: vault.address },
  )
  const stage = await createStage({ vault, address: proxy.address, volumeIn: tmpdir(), program })
  await stage.configure(stage.web({ layout, served: false }))
  const directory = join(stage.volume, 'web')
  let running: Certferry | undefined

  return {
    stage,
    directory,
    /** Starts, waits until the certificate is delivered, judges what is on disk, and gives its fingerprint. */
    deliver: async (where: () => string, complaints: string[]): Promise<string> => {
      running = stage.certferry()
      const { fingerprint } = await delivered(running)
      complaints.push(
        ...trouble(directory, layout, fingerprint).map((what) => `${where()}, after the next start: ${what}`),
      )
      return fingerprint ?? ''
    },
    /** Stops what runs, starts anew, and kills that. */
    killStart: async (afterMs: number) => {
      await running?.stop()
      running = stage.certferry()
      await sleep(afterMs)
      await running.stop('SIGKILL')
    },
    killRotation: async (afterMs: number) => {
      const asked = Promise.withResolvers<void>()
      onIssue = asked.resolve
      await running?.control.rotate({ certificates: ['web'] })
      await asked.promise
      await sleep(afterMs)
      await running?.stop('SIGKILL')
    },
    [Symbol.asyncDispose]: async () => {
      await running?.[Symbol.asyncDispose]()
      await stage[Symbol.asyncDispose]()
      await proxy[Symbol.asyncDispose]()
    },
  }
}

const delivered = (certferry: Certferry) =>
  certferry.certificate('web', 'is delivered', ({ phase, verified }) => phase === 'ACTIVE' && verified === 'none')

/** Temporary entries, or a generation without its manifest, which is written last. */
function isHalfDone(directory: string): boolean {
  const hasTemporary = readdirSync(directory, { recursive: true }).some((name) => String(name).includes('..tmp-'))
  return hasTemporary || generationsIn(directory).some((name) => !existsSync(join(directory, name, MANIFEST_FILE)))
}

/** What recovery owes: the pair matches and is the one that status tells, nothing half-done is left, nobody else may read it. */
function trouble(directory: string, layout: Layout, fingerprint: string | null): string[] {
  const found = isHalfDone(directory) ? [`something half-done is left: ${readdirSync(directory).join(', ')}`] : []
  try {
    if (readPair(directory, layout) !== fingerprint) found.push('status tells another certificate than the disk')
    assertTidy(directory)
  } catch (error) {
    found.push(error instanceof Error ? error.message : String(error))
  }
  return found
}
