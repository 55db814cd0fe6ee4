import { setTimeout as sleep } from 'node:timers/promises'
import type { CertificateStatus } from '../../src/observe/status.ts'
import { LAYOUTS } from '../../src/outputs/output.ts'
import { until } from '../../test/support/until.ts'
import type { TestVault } from '../../test/support/vault.ts'
import { assertTidy, readPair } from '../../test/support/volume.ts'
import { randomFrom } from '../kill-run.ts'
import { clockFaults } from './clock-faults.ts'
import { diskFaults, TAMPERING } from './disk-faults.ts'
import { between, type ChaosFault } from './fault.ts'
import { judgeIssuances } from './issuances.ts'
import { type Begun, type Counts, createJudge, type Judge, type Violation } from './judge.ts'
import { startObserver } from './observe.ts'
import { drawRound, type PlannedFault, type Round } from './plan.ts'
import { processFaults } from './process-faults.ts'
import { createSearch } from './secrets.ts'
import type { Story } from './story.ts'
import { createSubject, type Subject } from './subject.ts'
import { targetFaults } from './target-faults.ts'
import { vaultFaults, wholeVaultFaults } from './vault-faults.ts'

export interface ChaosPlan {
  readonly minutes: number
  readonly seed: number
  readonly sidecars: number
  /** The longest storm. */
  readonly stormSeconds: number
  readonly vault: TestVault
  readonly program: string
  readonly story: Story
  readonly onRound: (line: string) => void
}

/** What a campaign came to. */
export interface ChaosRun extends Counts {
  readonly minutes: number
  readonly seed: number
  readonly rounds: number
  readonly kinds: readonly { readonly kind: string; readonly injected: number; readonly survived: number }[]
  readonly kills: number
  readonly issued: number
  readonly asked: number
  readonly extra: number
  readonly overspent: number
  readonly secrets: number
  readonly recoveries: number
  readonly longestRecoveryMs: number
  readonly violations: readonly Violation[]
}

/** What may happen to one sidecar. */
export const FAULTS: readonly ChaosFault[] = [
  ...vaultFaults,
  ...diskFaults,
  ...clockFaults,
  ...targetFaults,
  ...processFaults,
]
export { wholeVaultFaults as WHOLE_VAULT_FAULTS } from './vault-faults.ts'

const KILLS: ReadonlySet<string> = new Set(['certferry killed', 'killed in a rotation', 'two at once'])
/** After these a certificate may be needed that is not due. */
const EXCUSES: ReadonlySet<string> = new Set(['directory renamed away', 'directory emptied'])
/**
 * From the end of the last fault to ACTIVE and verified. The longest waits that failures within one storm can lead to: the circuit
 * breaker leaves Vault alone for a minute; where nothing is on disk, what takes a person (a role that is gone) is tried again after two.
 */
const RECOVERY_MS = 150_000

/** Disturbs real sidecars at random, round after round, and stops at the first violation. */
export async function runChaos(plan: ChaosPlan): Promise<ChaosRun> {
  const { seed, sidecars, stormSeconds, vault, story, onRound } = plan
  const startedAt = Date.now()
  const judge = createJudge(story, TAMPERING)
  const tally = { rounds: 0, asked: 0, extra: 0, overspent: 0, recoveries: 0, longestRecoveryMs: 0 }
  const secrets = new Set<string>()
  // The serial of what is issued, in the clear.
  await vault.api('POST', 'sys/mounts/pki/tune', { audit_non_hmac_response_keys: ['serial_number'] })
  await using stack = new AsyncDisposableStack()
  const subjects: Subject[] = []
  const dice = randomFrom(seed)
  for (let index = 0; index < sidecars; index += 1) {
    const layout = LAYOUTS[index % LAYOUTS.length] ?? 'generation'
    const ttlSeconds = Math.round(between(dice, 40, 90))
    const name = `${layout}-${index + 1}`
    const subject = await createSubject({ ...plan, name, layout, ttlSeconds, complain: judge.complain })
    subjects.push(stack.use(subject))
    story.tell(name, `certificates live ${ttlSeconds} s`)
    subject.startCertferry()
    await subject.certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
    await subject.startNginx()
  }
  const searches = new Map(subjects.map((subject) => [subject, createSearch(subject)]))
  stack.use(await startObserver(subjects, judge.observed))
  await Promise.all(subjects.map((subject) => untilWell(subject, judge)))

  const options = { seed, sidecars, stormSeconds, kinds: FAULTS, wholeVault: wholeVaultFaults }
  let from = startedAt
  for (let number = 1; judge.violations.length === 0; number += 1) {
    const round = drawRound(options, number)
    const endsAt = startedAt + plan.minutes * 60_000
    if (number > 1 && Date.now() + round.stormMs > endsAt) break
    tally.rounds = number
    story.tell(undefined, `storm ${number}, ${round.faults.length} faults`)
    judge.storm()
    await blow(round, subjects, judge, story)
    const tookMs = await Promise.all(subjects.map((subject) => recover(subject, judge, story)))
    tally.recoveries += tookMs.length
    tally.longestRecoveryMs = Math.max(tally.longestRecoveryMs, ...tookMs)
    const calmEndsAt = Date.now() + round.calmMs
    while (Date.now() < calmEndsAt && judge.violations.length === 0) await sleep(100)
    for (const subject of subjects) {
      const { asked } = subject
      const found = judgeIssuances(await factsOf(subject, judge, from))
      for (const what of found.extra) judge.complain(subject.name, `issued unasked: ${what}`)
      for (const what of found.overspent) judge.complain(subject.name, `more than the budget: ${what}`)
      tally.extra += found.extra.length
      tally.overspent += found.overspent.length
      tally.asked += asked.count
      asked.count = 0
      await subject.record()
      for (const what of searches.get(subject)?.() ?? []) {
        secrets.add(`${subject.name}: ${what}`)
        judge.complain(subject.name, `${what} in what it printed or answered`)
      }
    }
    from = Date.now()
    const kinds = judge.faults.length
    const minutes = ((Date.now() - startedAt) / 60_000).toFixed(1)
    onRound(
      `round ${number}, ${minutes} min: ${kinds} faults so far, ${judge.counts.handshakes} handshakes, recovered in ${Math.max(...tookMs) / 1000} s at most`,
    )
  }
  const issued = (await Promise.all(subjects.map(({ stage }) => stage.issued()))).reduce((sum, one) => sum + one, 0)
  return {
    ...judge.counts,
    ...tally,
    minutes: (Date.now() - startedAt) / 60_000,
    seed,
    kinds: kindsOf(judge),
    kills: judge.faults.filter(({ kind }) => KILLS.has(kind)).length,
    issued,
    secrets: secrets.size,
    violations: judge.violations,
  }
}

/** All faults of a round, each at its time; over when the last one is. */
async function blow({ faults, stormMs }: Round, subjects: readonly Subject[], judge: Judge, story: Story) {
  const startedAt = Date.now()
  const until = (ms: number) => sleep(Math.max(startedAt + ms - Date.now(), 0))
  // One after another within a group: what comes late makes the next one late.
  const rows = Map.groupBy(faults, ({ subject, group }) => `${subject} ${group}`).values()
  const play = async (row: readonly PlannedFault[]) => {
    for (const planned of row) {
      if (judge.violations.length > 0) return
      await until(planned.startMs)
      await strike(planned, subjects, { judge, story, untilEnd: () => until(planned.endMs) })
    }
  }
  const isOver = new AbortController()
  const records = subjects.map((subject) => keepRecord(subject, isOver.signal))
  await Promise.all([until(stormMs), ...Array.from(rows, play)])
  isOver.abort()
  await Promise.all(records)
}

const RECORD_MS = 3_000

/** What the endpoints answer meanwhile; nobody waits for one that is suspended. */
async function keepRecord(subject: Subject, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await Promise.race([subject.record(), sleep(1_000)])
    await sleep(RECORD_MS, undefined, { signal }).catch(() => undefined)
  }
}

interface Stroke {
  readonly judge: Judge
  readonly story: Story
  readonly untilEnd: () => Promise<unknown>
}

async function strike(
  { kind, group, subject: index, seed }: PlannedFault,
  subjects: readonly Subject[],
  stroke: Stroke,
) {
  const { judge, story, untilEnd } = stroke
  const hit = subjects[index ?? 0]
  const fault = [...FAULTS, ...wholeVaultFaults].find((one) => one.kind === kind)
  if (!fault || !hit) return
  const subject = index === undefined ? undefined : hit.name
  story.tell(subject, `fault: ${kind}`)
  const begun = judge.begun({ kind, group, subject })
  const undo = await fault.begin(hit, randomFrom(seed)).catch((error: Error) => {
    // Another fault stands in its way, such as a full disk for an edit.
    story.tell(subject, `fault ${kind} could not be: ${error.message.split('\n')[0]}`)
    begun.to = begun.from
  })
  if (!undo) return
  await untilEnd()
  await undo()
  begun.to = Date.now()
  story.tell(subject, `fault over: ${kind}`)
}

/** How long it took to come back by itself; it has to be tidy then, and served. */
async function recover(subject: Subject, judge: Judge, story: Story): Promise<number> {
  const startedAt = Date.now()
  try {
    const first = await untilWell(subject, judge)
    if (first === 'stopped') return Date.now() - startedAt
    judge.recovered(subject.name)
    const tookMs = Date.now() - startedAt
    story.tell(subject.name, `well again after ${tookMs} ms`)
    return tookMs
  } catch (error) {
    const why = error instanceof Error ? error.message : error
    judge.complain(subject.name, `${why}; ${await lastStatus(subject)}`)
    return Date.now() - startedAt
  }
}

/** ACTIVE and verified, by its own word; what it says is on disk and is what clients get, and nothing is left over there. */
function untilWell(subject: Subject, judge: Judge): Promise<CertificateStatus | 'stopped'> {
  const ask = async () => {
    // A violation came first, here or elsewhere.
    if (judge.violations.length > 0) return 'stopped'
    const [status] = (await subject.certferry.status()).certificates
    const isServed = status !== undefined && judge.servedLast(subject.name) === status.serial
    if (!status || !isServed || !isWell(status)) return undefined
    // A renewal may be under way.
    if (readPair(subject.directory, subject.layout) !== status.fingerprint) return undefined
    assertTidy(subject.directory)
    return status
  }
  return until('it is ACTIVE, verified and served', ask, { timeoutMs: RECOVERY_MS, everyMs: 100 })
}

const isWell = ({ phase, verified, failures, servedEqualsDisk }: CertificateStatus) =>
  phase === 'ACTIVE' && verified === 'verified' && failures === 0 && servedEqualsDisk !== false

const lastStatus = (subject: Subject) =>
  subject.certferry.status().then(
    (status) => JSON.stringify(status.certificates),
    (error: Error) => error.message,
  )

async function factsOf({ name, vault, stage, written, ttlMs, asked }: Subject, judge: Judge, from: number) {
  const path = `pki/sign/${stage.role}`
  const issued = (await vault.audited()).filter((one) => one.path === path && one.error === '')
  const excuses = judge.faults
    .filter((fault) => fault.subject === name && (fault.group === 'clock' || EXCUSES.has(fault.kind)))
    .flatMap((fault: Begun) => [fault.from, fault.to ?? Date.now()])
  return { issued, written, lifetimeMs: ttlMs, from, asked: asked.count, excuses }
}

/** What was begun before everything was well again is survived. */
function kindsOf({ faults, violations }: Judge): ChaosRun['kinds'] {
  return [
    ...Map.groupBy(
      faults.filter(({ from, to }) => to !== from),
      ({ kind }) => kind,
    ),
  ]
    .map(([kind, group]) => ({
      kind,
      injected: group.length,
      survived: violations.length === 0 ? group.length : group.filter(({ to }) => to !== undefined).length,
    }))
    .toSorted((a, b) => a.kind.localeCompare(b.kind))
}
