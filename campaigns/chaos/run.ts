import { setTimeout as sleep } from 'node:timers/promises'
import { LAYOUTS } from '../../src/outputs/output.ts'
import type { TestVault } from '../../test/support/vault.ts'
import { randomFrom } from '../kill-run.ts'
import { FAULTS, WHOLE_VAULT_FAULTS } from './catalogue.ts'
import { TAMPERING } from './disk-faults.ts'
import { between } from './fault.ts'
import { judgeIssuances } from './issuances.ts'
import { type Counts, createJudge, type Judge, type Violation } from './judge.ts'
import { startObserver } from './observe.ts'
import { drawRound } from './plan.ts'
import { recover, untilWell } from './recovery.ts'
import { createSearch } from './secrets.ts'
import { blow, type Scene } from './storm.ts'
import type { Story } from './story.ts'
import { createSubject, type Subject } from './subject.ts'

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
  /** Survived is what everything came back from without a violation. */
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

const KILLS: ReadonlySet<string> = new Set(['certferry killed', 'killed in a rotation', 'two at once'])
/** After these a certificate may be needed that is not due. */
const EXCUSES: ReadonlySet<string> = new Set(['directory renamed away', 'directory emptied'])

/** Disturbs real sidecars at random, round after round, and stops at the first violation. */
export async function runChaos(plan: ChaosPlan): Promise<ChaosRun> {
  const { seed, sidecars, stormSeconds, vault, story, onRound } = plan
  const startedAt = Date.now()
  const endsAt = startedAt + plan.minutes * 60_000
  const judge = createJudge(story, TAMPERING)
  const tally = { rounds: 0, recoveries: 0, longestRecoveryMs: 0, survivedUntil: 0 }
  await using stack = new AsyncDisposableStack()
  // The serial of what is issued, in the clear.
  await vault.api('POST', 'sys/mounts/pki/tune', { audit_non_hmac_response_keys: ['serial_number'] })
  const subjects = await createSubjects(plan, judge, stack)
  const scene = { subjects, judge, story }
  const inspection = createInspection(scene, vault)
  stack.use(await startObserver(subjects, judge.observed))
  await Promise.all(subjects.map((subject) => untilWell(subject, judge)))

  const options = { seed, sidecars, stormSeconds, kinds: FAULTS, wholeVault: WHOLE_VAULT_FAULTS }
  for (let number = 1; judge.violations.length === 0; number += 1) {
    const round = drawRound(options, number)
    if (number > 1 && Date.now() + round.stormMs > endsAt) break
    story.tell(undefined, `storm ${number}, ${round.faults.length} faults`)
    judge.storm()
    await blow(round, scene)
    const tookMs = await Promise.all(subjects.map((subject) => recover(subject, scene)))
    const calmEndsAt = Date.now() + round.calmMs
    while (Date.now() < calmEndsAt && judge.violations.length === 0) await sleep(100)
    await inspection.look()

    tally.rounds = number
    tally.recoveries += tookMs.length
    tally.longestRecoveryMs = Math.max(tally.longestRecoveryMs, ...tookMs)
    if (judge.violations.length === 0) tally.survivedUntil = Date.now()
    const minutes = ((Date.now() - startedAt) / 60_000).toFixed(1)
    const recovered = `recovered in ${(Math.max(...tookMs) / 1000).toFixed(1)} s at most`
    onRound(
      `round ${number}, ${minutes} min: ${judge.faults.length} faults, ${judge.counts.handshakes} handshakes, ${recovered}`,
    )
  }
  const issued = await Promise.all(subjects.map(({ stage }) => stage.issued()))
  return {
    ...judge.counts,
    ...tally,
    ...inspection.found(),
    minutes: (Date.now() - startedAt) / 60_000,
    seed,
    kinds: kindsOf(judge, tally.survivedUntil),
    kills: judge.faults.filter(({ kind, isVoid }) => KILLS.has(kind) && !isVoid).length,
    issued: issued.reduce((sum, one) => sum + one, 0),
    violations: judge.violations,
  }
}

/** In service, one after another; the layouts in turn, lifetimes of 40 to 90 s. */
async function createSubjects(plan: ChaosPlan, judge: Judge, stack: AsyncDisposableStack): Promise<Subject[]> {
  const subjects: Subject[] = []
  const dice = randomFrom(plan.seed)
  for (let index = 0; index < plan.sidecars; index += 1) {
    const layout = LAYOUTS[index % LAYOUTS.length] ?? 'generation'
    const ttlSeconds = Math.round(between(dice, 40, 90))
    const name = `${layout}-${index + 1}`
    const subject = await createSubject({ ...plan, name, layout, ttlSeconds, complain: judge.complain })
    subjects.push(stack.use(subject))
    plan.story.tell(name, `certificates live ${ttlSeconds} s`)
    subject.startCertferry()
    await subject.certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
    await subject.startNginx()
  }
  return subjects
}

/** The look at the end of each round: what Vault issued, and whether a secret got out. */
function createInspection({ subjects, judge }: Scene, vault: TestVault) {
  const searches = subjects.map((subject) => ({ subject, search: createSearch(subject) }))
  const found = { asked: 0, extra: 0, overspent: 0 }
  const secrets = new Set<string>()
  let from = 0

  const judgeIssued = async (subject: Subject, to: number) => {
    const { name, asked, written, ttlMs, stage } = subject
    const path = `pki/sign/${stage.role}`
    const issued = (await vault.audited()).filter((one) => one.path === path && one.error === '' && one.at < to)
    const excuses = excusesOf(judge, name)
    const facts = { issued, written, lifetimeMs: ttlMs, from, asked: asked.count, excuses }
    const { extra, overspent } = judgeIssuances(facts)
    for (const what of extra) judge.complain(name, `issued unasked: ${what}`)
    for (const what of overspent) judge.complain(name, `more than the budget: ${what}`)
    found.extra += extra.length
    found.overspent += overspent.length
    found.asked += asked.count
    asked.count = 0
  }
  return {
    look: async () => {
      const to = Date.now()
      for (const { subject, search } of searches) {
        await judgeIssued(subject, to)
        await subject.record()
        for (const what of search()) {
          secrets.add(`${subject.name}: ${what}`)
          judge.complain(subject.name, `${what} in what it printed or answered`)
        }
      }
      from = to
    },
    found: () => ({ ...found, secrets: secrets.size }),
  }
}

const excusesOf = ({ faults }: Judge, name: string) =>
  faults
    .filter(({ subject, group, kind }) => subject === name && (group === 'clock' || EXCUSES.has(kind)))
    .flatMap((fault) => [fault.from, fault.to ?? Date.now()])

function kindsOf({ faults }: Judge, survivedUntil: number): ChaosRun['kinds'] {
  const kinds = Map.groupBy(
    faults.filter(({ isVoid }) => !isVoid),
    ({ kind }) => kind,
  )
  return [...kinds]
    .map(([kind, group]) => ({
      kind,
      injected: group.length,
      survived: group.filter(({ from }) => from < survivedUntil).length,
    }))
    .toSorted((a, b) => a.kind.localeCompare(b.kind))
}
