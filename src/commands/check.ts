import type { X509Certificate } from 'node:crypto'
import { getCACertificates } from 'node:tls'
import { styleText } from 'node:util'
import { parseCertificates } from '../core/bundle.ts'
import { formatDuration } from '../core/units.ts'
import { systemCode, toSidecarError } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { StartTls } from '../verifiers/start-tls.ts'
import { examine, type Finding } from './examine.ts'
import { count, type Io, print } from './io.ts'
import type { Expectations, State } from './judge.ts'

export interface CheckOptions {
  /** Less left than this is a warning, ms. */
  readonly warn: number
  /** Less left than this is critical, ms. */
  readonly critical: number
  /** Name to ask hosts for, and to expect everywhere. */
  readonly serverName?: string | undefined
  /** PEM roots to trust instead of those of the system. */
  readonly caFile?: string | undefined
  /** Protocol in which hosts are asked for TLS first. */
  readonly startTls?: StartTls | undefined
  readonly json?: boolean | undefined
}

type CheckIo = Pick<Io, 'stdout' | 'signal'>

/**
 * Looks at remote endpoints and local files: expiry, chain, names, key. Prints a summary line first, as monitoring plugins do, then what
 * was found, soonest to expire first. Resolves with the exit code: 0 ok, 1 warning, 2 critical, 3 unknown.
 */
export async function check(targets: readonly string[], options: CheckOptions, io: CheckIo): Promise<number> {
  const now = Date.now()
  const roots = readRoots(options.caFile)
  if (typeof roots === 'string') return report([], { state: 'UNKNOWN', text: roots }, { options, io, now })
  const expectations = { ...options, roots, now }
  const findings = await examineAll(targets, expectations, io.signal)
  findings.sort((a, b) => (a.notAfter ?? 0) - (b.notAfter ?? 0))
  return report(findings, summarise(findings, now), { options, io, now })
}

/** The trusted roots, or why there are none. */
function readRoots(caFile: string | undefined): readonly X509Certificate[] | string {
  if (caFile === undefined) {
    const ofSystem = getCACertificates('system')
    return (ofSystem.length > 0 ? ofSystem : getCACertificates('bundled')).flatMap(parseCertificates)
  }
  try {
    const roots = parseCertificates(readPlainFile(caFile).toString('utf8'))
    return roots.length > 0 ? roots : `--ca-file ${caFile} holds no certificate`
  } catch (error) {
    return `--ca-file ${caFile} cannot be used: ${systemCode(error) ?? toSidecarError(error).message}`
  }
}

const AT_ONCE = 16

async function examineAll(
  targets: readonly string[],
  expectations: Expectations,
  signal: AbortSignal,
): Promise<Finding[]> {
  const findings: Finding[] = []
  const waiting = targets.entries()
  const work = async () => {
    for (const [index, target] of waiting) findings[index] = await examine(target, expectations, signal)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return findings
}

/** From good to bad. That a target could not be judged is worse than a warning. */
const ORDER: readonly State[] = ['OK', 'WARNING', 'UNKNOWN', 'CRITICAL']
const EXIT_CODES: Readonly<Record<State, number>> = { OK: 0, WARNING: 1, CRITICAL: 2, UNKNOWN: 3 }

interface Summary {
  readonly state: State
  readonly text: string
}

function summarise(findings: readonly Finding[], now: number): Summary {
  const state = ORDER.findLast((candidate) => findings.some((finding) => finding.state === candidate)) ?? 'UNKNOWN'
  const first = findings.find((finding) => finding.state === state)
  const all = count(findings.length, 'certificate')
  if (state === 'OK' && first) return { state, text: `${all}, next expires in ${left(first, now)}: ${first.target}` }
  const others = findings.filter((finding) => finding.state !== 'OK').length - 1
  const more = others > 0 ? ` (and ${others} more of ${all})` : ''
  return { state, text: `${first?.target}: ${first?.problems[0]}${more}` }
}

const left = ({ notAfter }: Finding, now: number) => (notAfter === undefined ? '' : formatDuration(notAfter - now))

interface Reporting {
  readonly options: CheckOptions
  readonly io: CheckIo
  readonly now: number
}

function report(findings: readonly Finding[], { state, text }: Summary, { options, io, now }: Reporting): number {
  const exitCode = EXIT_CODES[state]
  if (options.json)
    print(io, JSON.stringify({ state, exitCode, summary: text, targets: findings.map(forMachines) }, null, 2))
  else print(io, [`${colour(state, state, io)} - ${text}`, ...table(findings, io, now)].join('\n'))
  return exitCode
}

const forMachines = ({ notBefore, notAfter, ...rest }: Finding) => ({
  ...rest,
  notBefore: notBefore === undefined ? undefined : new Date(notBefore).toISOString(),
  notAfter: notAfter === undefined ? undefined : new Date(notAfter).toISOString(),
})

const COLOURS = { OK: 'green', WARNING: 'yellow', CRITICAL: 'red', UNKNOWN: 'magenta' } as const
const colour = (state: State, text: string, { stdout }: CheckIo) => styleText(COLOURS[state], text, { stream: stdout })

/** A row per target, with its problems below it. */
function table(findings: readonly Finding[], io: CheckIo, now: number): string[] {
  if (findings.length === 0) return []
  const rows = findings.map((finding) => {
    const on =
      finding.notAfter === undefined ? '' : new Date(finding.notAfter).toISOString().slice(0, 16).replace('T', ' ')
    return { finding, cells: [finding.state, finding.target, left(finding, now), on, (finding.names ?? []).join(' ')] }
  })
  const head = ['STATE', 'TARGET', 'EXPIRES IN', 'ON (UTC)', 'NAMES']
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map(({ cells }) => cells[column]?.length ?? 0)),
  )
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
  return [
    '',
    styleText('bold', line(head), { stream: io.stdout }),
    ...rows.flatMap(({ finding, cells }) => [
      line(cells).replace(finding.state, (state) => colour(finding.state, state, io)),
      ...finding.problems.map(
        (problem) => `${' '.repeat((widths[0] ?? 0) + 2)}${colour(finding.state, '└', io)} ${problem}`,
      ),
    ]),
  ]
}
