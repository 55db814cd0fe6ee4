import { setTimeout as sleep } from 'node:timers/promises'
import { randomFrom } from '../kill-run.ts'
import { FAULTS, WHOLE_VAULT_FAULTS } from './catalogue.ts'
import type { Judge } from './judge.ts'
import type { PlannedFault, Round } from './plan.ts'
import type { Story } from './story.ts'
import type { Subject } from './subject.ts'

export interface Scene {
  readonly subjects: readonly Subject[]
  readonly judge: Judge
  readonly story: Story
}

/** All faults of a round, each at its time; over when the last one is. */
export async function blow({ faults, stormMs }: Pick<Round, 'faults' | 'stormMs'>, scene: Scene): Promise<void> {
  const startedAt = Date.now()
  const reach = (ms: number) => sleep(Math.max(startedAt + ms - Date.now(), 0))
  // One after another within a group: what comes late makes the next one late.
  const rows = Map.groupBy(faults, ({ subject, group }) => `${subject} ${group}`).values()
  const play = async (row: readonly PlannedFault[]) => {
    for (const planned of row) {
      if (scene.judge.violations.length > 0) return
      await reach(planned.startMs)
      await strike(planned, scene, () => reach(planned.endMs))
    }
  }
  const isOver = new AbortController()
  const records = scene.subjects.map((subject) => keepRecord(subject, isOver.signal))
  await Promise.all([reach(stormMs), ...Array.from(rows, play)])
  isOver.abort()
  await Promise.all(records)
}

async function strike(
  { kind, group, subject: index, seed }: PlannedFault,
  { subjects, judge, story }: Scene,
  untilEnd: () => Promise<unknown>,
): Promise<void> {
  const hit = subjects[index ?? 0]
  const fault = [...FAULTS, ...WHOLE_VAULT_FAULTS].find((one) => one.kind === kind)
  if (!fault || !hit) return
  const subject = index === undefined ? undefined : hit.name
  story.tell(subject, `fault: ${kind}`)
  const begun = judge.begun({ kind, group, subject })
  const undo = await fault.begin(hit, randomFrom(seed)).catch((error: Error) => {
    // Another fault stands in its way, such as a full disk for an edit.
    story.tell(subject, `fault ${kind} could not be: ${error.message.split('\n')[0]}`)
    begun.isVoid = true
    begun.to = Date.now()
  })
  if (!undo) return
  await untilEnd()
  try {
    await undo()
  } catch (error) {
    judge.complain(subject, `${kind} cannot be undone: ${error instanceof Error ? error.message : error}`)
  }
  begun.to = Date.now()
  story.tell(subject, `fault over: ${kind}`)
}

const RECORD_MS = 3_000

/** What the endpoints answer meanwhile; nobody waits for one that is suspended. */
async function keepRecord(subject: Subject, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await Promise.race([subject.record(), sleep(1_000)])
    await sleep(RECORD_MS, undefined, { signal }).catch(() => undefined)
  }
}
