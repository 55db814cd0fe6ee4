import { LAYOUTS } from '../src/outputs/output.ts'
import type { TestVault } from '../test/support/vault.ts'
import { killCertferry } from './kill.ts'
import type { KillRun } from './kill-run.ts'
import { consulTemplate, killPeer, vaultAgent } from './peers.ts'

/** A share of the kills of a row: a row is made of several, so that they can run side by side. */
export type KillJob = () => Promise<KillRun>

export interface KillJobs {
  readonly count: number
  readonly seed: number
  readonly vault: TestVault
  readonly onKill: () => void
}

const SHARE = 25

const COLUMNS = [
  ['kills', 'kills'],
  ['old', 'old set'],
  ['new', 'new set'],
  ['mixed', 'mixed or torn pair'],
  ['halfDone', 'half-done work found'],
  ['mixedLater', 'mixed after the next start'],
  ['issued', 'issued'],
  ['extra', 'issued unasked'],
] as const

/** Kills of certferry, shared out among the layouts. */
export function certferryJobs({ count, program, ...job }: KillJobs & { readonly program: string }): KillJob[] {
  return LAYOUTS.flatMap((layout, index) => {
    const kills = Math.floor(count / LAYOUTS.length) + (index < count % LAYOUTS.length ? 1 : 0)
    return shares(kills).map((share, part) => () => {
      return killCertferry({ ...job, layout, program, kills: share, seed: job.seed + index * 1000 + part })
    })
  })
}

/** Kills of Vault Agent and of consul-template, so many of each. What cannot be had is told, and left out. */
export async function peerJobs({ count, seed, vault, onKill }: KillJobs): Promise<KillJob[]> {
  if (count === 0) return []
  const jobs: KillJob[] = []
  for (const [index, peer] of [vaultAgent, consulTemplate].entries()) {
    try {
      await peer.find()
    } catch (error) {
      console.log(`${peer.name} is absent: ${error instanceof Error ? error.message : error}`)
      continue
    }
    for (const [part, kills] of shares(count).entries())
      jobs.push(() => killPeer(peer, vault, { kills, seed: seed + 10_000 * (index + 1) + part, onKill }))
  }
  return jobs
}

function shares(count: number): number[] {
  return Array.from({ length: Math.ceil(count / SHARE) }, (_, part) => Math.min(SHARE, count - part * SHARE))
}

/** One by one for each of so many workers; what comes out is in the order of the jobs. */
export async function inTurn(jobs: readonly KillJob[], atOnce: number): Promise<KillRun[]> {
  const queue = jobs.entries()
  const runs = new Map<number, KillRun>()
  const work = async () => {
    for (const [index, job] of queue) runs.set(index, await job())
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  return jobs.flatMap((_, index) => runs.get(index) ?? [])
}

/** One row for each subject, which may be of several runs. */
export function killTable(runs: readonly KillRun[]): string {
  const rows = [...Map.groupBy(runs, ({ subject }) => subject)].map(([subject, group]) => [
    subject,
    ...COLUMNS.map(([column]) => sumOf(group.map((run) => run[column]))),
  ])
  const head = ['program', ...COLUMNS.map(([, title]) => title)]
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

function sumOf(numbers: readonly (number | undefined)[]): string {
  if (numbers.includes(undefined)) return '–'
  return String(numbers.reduce<number>((total, number = 0) => total + number, 0))
}
