import type { Detail, Figure, Target, Values } from './row.ts'

/** Middle, smallest and largest of some runs. */
export interface Summary {
  readonly median: number
  readonly min: number
  readonly max: number
}

export function summaryOf(values: readonly number[]): Summary {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  const median = ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2
  return { median, min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN }
}

/** How far certferry is from a target. */
export interface Verdict {
  /** What the target comes to in this run; undefined when the one it is measured by is absent. */
  readonly limit: number | undefined
  /** certferry's median as a multiple of that: met up to 1. */
  readonly share: number | undefined
}

export const OWN = 'certferry'

export function verdictOf({ of, times = 1, plus = 0 }: Target, values: Values): Verdict {
  const own = medianOf(values, OWN)
  const base = of === undefined ? 0 : medianOf(values, of)
  const limit = base === undefined ? undefined : base * times + plus
  return { limit, share: own === undefined || limit === undefined ? undefined : own / limit }
}

/** certferry's median as a multiple of that of another one; undefined where there is none, or nothing to multiply. */
export function ratioOf(values: Values, other: string): number | undefined {
  const [own, base] = [medianOf(values, OWN), medianOf(values, other)]
  return own === undefined || base === undefined || base === 0 ? undefined : own / base
}

const medianOf = (values: Values, name: string) => {
  const all = values[name] ?? []
  return all.length === 0 ? undefined : summaryOf(all).median
}

/**
 * The one table, in Markdown: medians with their range; behind those of others, how many times of it certferry has. `columns` are the
 * contenders; whoever else was measured is the floor.
 */
export function renderFigures(
  columns: readonly string[],
  figures: readonly Figure[],
  absent: readonly string[],
): string {
  const head = ['', ...columns, 'floor', 'target', '']
  return renderTable(
    head,
    figures.map((figure) => lineOf(figure, columns, absent)),
  )
}

function lineOf(figure: Figure, columns: readonly string[], absent: readonly string[]): string[] {
  const { title, unit, values, targets } = figure
  const floors = Object.keys(values).filter((name) => !columns.includes(name))
  return [
    `${title}, ${unit}`,
    ...columns.map((name) => (absent.includes(name) ? 'absent' : cellOf(figure, name))),
    floors.map((name) => `${name} ${cellOf(figure, name)}`).join('; ') || '—',
    targets.map((target) => targetText(target, unit)).join('; ') || '—',
    targets.map((target) => verdictText(target, values)).join('; '),
  ]
}

function cellOf({ values, digits }: Figure, name: string): string {
  const all = values[name] ?? []
  if (all.length === 0) return '—'
  const { median, min, max } = summaryOf(all)
  const text = (value: number) => value.toFixed(digits)
  const range = all.length > 1 ? ` (${text(min)}–${text(max)})` : ''
  const ratio = ratioOf(values, name)
  return `${text(median)}${range}${name === OWN || ratio === undefined ? '' : ` **${ratio.toFixed(2)} ×**`}`
}

function targetText({ of, times = 1, plus, isStretch }: Target, unit: string): string {
  const amount = plus === undefined ? '' : `${plus} ${unit}`
  const share = of === undefined ? '' : times === 1 && plus !== undefined ? of : `${times} × ${of}`
  return `${isStretch ? 'stretch ' : ''}≤ ${[share, amount].filter((part) => part !== '').join(' + ')}`
}

function verdictText(target: Target, values: Values): string {
  const { share } = verdictOf(target, values)
  if (share === undefined) return target.of && values[OWN] ? `${target.of} was not measured` : 'not measured'
  const name = target.isStretch ? 'stretch ' : ''
  return share <= 1
    ? `${name}met (${Math.round(100 * share)} % of it)`
    : `${name}missed by ${Math.ceil(100 * (share - 1))} %`
}

export const renderDetail = ({ title, head, lines }: Detail) => `${title}\n\n${renderTable(head, lines)}`

/** Markdown that lines up in a terminal too. */
function renderTable(head: readonly string[], lines: readonly (readonly string[])[]): string {
  const widths = head.map((_, column) => Math.max(3, ...[head, ...lines].map((line) => line[column]?.length ?? 0)))
  const render = (line: readonly string[]) =>
    `| ${line.map((text, column) => text.padEnd(widths[column] ?? 0)).join(' | ')} |`
  return [render(head), render(widths.map((width) => '-'.repeat(width))), ...lines.map(render)].join('\n')
}
