import type { KillRun } from '../kill-run.ts'
import type { ChaosRun } from './run.ts'
import type { Story } from './story.ts'

/** Which faults there were, and what came of them. */
export function chaosTables(run: ChaosRun): string {
  const kinds = run.kinds.map(({ kind, injected, survived }) => [kind, injected, survived])
  const facts = [
    ['minutes', run.minutes.toFixed(1)],
    ['seed', run.seed],
    ['rounds', run.rounds],
    ['faults injected / survived', `${injectedIn(run)} / ${survivedIn(run)}`],
    ['kills of certferry', run.kills],
    ['handshakes', run.handshakes],
    ['connections refused or lost, with the target disturbed by us', run.refused],
    ['connections refused or lost otherwise', run.failed],
    ['expired certificate served / of that unexcused', `${run.expired} / ${countOf(run, 'expired')}`],
    ['pairs read on disk', run.pairs],
    ['mixed pairs', run.mixed],
    [
      'issued / rotations asked for / extra / windows over budget',
      `${run.issued} / ${run.asked} / ${run.extra} / ${run.overspent}`,
    ],
    ['secrets found', run.secrets],
    ['recoveries / the longest', `${run.recoveries} / ${(run.longestRecoveryMs / 1000).toFixed(1)} s`],
    ['violations', run.violations.length],
  ]
  return [table([['fault', 'injected', 'survived'], ...kinds]), table([['', ''], ...facts])].join('\n\n')
}

/** Ready for the README. */
export function figuresLine(run: ChaosRun, kills: readonly KillRun[]): string {
  const rates = [...Map.groupBy(kills, ({ subject }) => subject.split(',')[0] ?? '')].map(([program, runs]) => {
    const sum = (pick: (run: KillRun) => number) => runs.reduce((total, one) => total + pick(one), 0)
    const [killed, mixed] = [sum((one) => one.kills), sum((one) => one.mixed)]
    return `${program} ${mixed} of ${killed} (${((100 * mixed) / killed).toFixed(0)} %)`
  })
  const figures = [
    `faults injected ${injectedIn(run)}`,
    `survived ${survivedIn(run)}`,
    `mixed pairs ${run.mixed}`,
    `extra issuances ${run.extra}`,
    `secrets found ${run.secrets}`,
  ].join(' / ')
  return rates.length === 0 ? figures : `${figures}\nmixed pairs after SIGKILL in the same run: ${rates.join(', ')}`
}

/** Each violation with what happened around it. */
export function violationsOf(run: ChaosRun, story: Story): string {
  return run.violations
    .slice(0, 5)
    .map(({ at, subject, what }) => `\nVIOLATION ${subject ?? ''}: ${what}\n${story.around(subject, at)}`)
    .join('\n')
}

const injectedIn = (run: ChaosRun) => run.kinds.reduce((sum, { injected }) => sum + injected, 0)
const survivedIn = (run: ChaosRun) => run.kinds.reduce((sum, { survived }) => sum + survived, 0)
const countOf = (run: ChaosRun, word: string) => run.violations.filter(({ what }) => what.startsWith(word)).length

function table([head = [], ...rows]: readonly (readonly (string | number)[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}
