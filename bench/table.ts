/** Middle, smallest and largest of some runs. */
export interface Summary {
  readonly median: number
  readonly min: number
  readonly max: number
}

export interface Row {
  readonly title: string
  readonly unit: string
  readonly digits: number
  /** One per contender; undefined where it did not take part. */
  readonly cells: readonly (Summary | undefined)[]
}

export function summaryOf(values: readonly number[]): Summary {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  const median = ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2
  return { median, min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN }
}

/** Medians, with the range and, behind it, how many times the first column's median it is. */
export function renderTable(columns: readonly string[], rows: readonly Row[]): string {
  const lines = [
    ['', ...columns],
    ...rows.map(({ title, unit, digits, cells }) => [
      `${title}, ${unit}`,
      ...cells.map((cell, index) => renderCell(cell, index === 0 ? undefined : cells[0], digits)),
    ]),
  ]
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0))) ?? []
  return lines
    .map((line) =>
      line
        .map((text, column) => text.padEnd(widths[column] ?? 0))
        .join('   ')
        .trimEnd(),
    )
    .join('\n')
}

function renderCell(cell: Summary | undefined, base: Summary | undefined, digits: number): string {
  if (!cell) return 'absent'
  const [median, min, max] = [cell.median, cell.min, cell.max].map((value) => value.toFixed(digits))
  const ratio = base ? `  ×${(cell.median / base.median).toFixed(2)}` : ''
  return `${median} (${min}–${max})${ratio}`
}
