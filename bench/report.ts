import type { RunDescription } from './machine.ts'
import type { Findings } from './row.ts'
import { renderDetail, renderFigures, summaryOf, verdictOf } from './table.ts'

export interface RowReport extends Findings {
  readonly name: string
  readonly title: string
  readonly seconds: number
  /** Why there are no figures. */
  readonly failure?: string
}

export interface RunReport extends RunDescription {
  readonly absent: readonly { readonly name: string; readonly why: string }[]
  readonly reports: readonly RowReport[]
}

/** All of it is on stderr. */
const LONGEST_FAILURE = 300
const CONTENDERS = ['certferry', 'Vault Agent', 'consul-template']

/** In Markdown. */
export function renderReport(run: RunReport): string {
  const { reports, absent } = run
  const figures = reports.flatMap((row) => row.figures)
  const names = absent.map(({ name }) => name)
  const failures = reports.flatMap(({ name, failure }) =>
    failure === undefined
      ? []
      : [`NOT MEASURED, ${name}: ${failure.replaceAll(/\s+/g, ' ').slice(0, LONGEST_FAILURE)}`],
  )
  return [
    headline(run),
    figures.length === 0 ? '' : renderFigures(CONTENDERS, figures, names),
    ...failures,
    ...reports.flatMap(({ details = [] }) => details.map(renderDetail)),
    reports.flatMap(({ notes = [] }) => notes.map((note) => `- ${note}`)).join('\n'),
  ]
    .filter((part) => part !== '')
    .join('\n\n')
}

function headline({ date, machine, versions, volume, absent }: RunReport): string {
  const { processors, processor, memoryBytes, kernel, loadAverage } = machine
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    `${date.slice(0, 10)}; ${processors} × ${processor}, ${Math.round(memoryBytes / 2 ** 30)} GiB, Linux ${kernel}, load average ${loadAverage.toFixed(1)}; ${programs.join(', ')}; certificates on ${volume.fileSystem}.`,
    'Medians, with least and most; **×** is certferry as a multiple of that one.',
    ...absent.map(({ name, why }) => `${name} is absent: ${why}.`),
  ].join(' ')
}

/** Every run, with what the table says of it. */
export const toJson = ({ reports, ...run }: RunReport) => ({
  ...run,
  rows: reports.map(({ figures, ...row }) => ({
    ...row,
    figures: figures.map((figure) => ({
      ...figure,
      summaries: Object.fromEntries(Object.entries(figure.values).map(([name, values]) => [name, summaryOf(values)])),
      targets: figure.targets.map((target) => ({ ...target, ...verdictOf(target, figure.values) })),
    })),
  })),
})
