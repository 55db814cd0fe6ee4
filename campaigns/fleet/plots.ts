import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Axis, type Panel, type Point, renderChart } from './chart.ts'
import { countsOf } from './rates.ts'
import { duration } from './report.ts'
import { type Disturbed, HOUR_MS, MINUTE_MS, type Steady, TARGET_RATIO, windowOf } from './scenarios.ts'
import type { Run } from './simulate.ts'

/** Writes the plots of a simulation into a folder; gives their names. */
export async function writePlots(folder: string, plots: Readonly<Record<string, string>>): Promise<string[]> {
  await mkdir(folder, { recursive: true })
  for (const [name, svg] of Object.entries(plots)) await writeFile(join(folder, name), svg)
  return Object.keys(plots)
}

/** Requests over several lifetimes, one panel for each rule. */
export function plotSteady(steady: readonly Steady[], lifeMs: number): string {
  const lifetimes = steady[0]?.lifetimes.length ?? 0
  const windowMs = windowOf(lifeMs)
  const stretch = { from: 0, to: lifetimes * lifeMs, windowMs, unitMs: lifeMs }
  const panels = steady.map(({ run }) => ({
    label: `${run.rule.name}: ${run.rule.words}`,
    lines: [{ isStepped: true, points: pointsOf(run, stretch) }],
  }))
  const title = `In peace: requests at Vault after all started within a minute (windows of ${duration(windowMs)})`
  const label = `lifetimes of a certificate (${duration(lifeMs)}) since the start`
  const x = { label, from: 0, to: lifetimes, ticks: upTo(lifetimes, 2) }
  return renderChart({ title, x, y: rateAxis(panels), panels, panelHeight: 130 })
}

/** How uneven each lifetime is, one line for each way to spread. */
export function plotSpreads(spreads: readonly Steady[]): string {
  const lifetimes = Math.max(...spreads.map((one) => one.lifetimes.length))
  return renderChart({
    title: 'From "all at once" to even',
    x: {
      label: 'lifetimes of a certificate since the start',
      from: 1,
      to: lifetimes,
      ticks: [1, ...upTo(lifetimes, 2).slice(1)],
    },
    y: { label: 'peak / mean of that lifetime', from: 1, to: 6, ticks: [1, 2, 3, 4, 5, 6] },
    panels: [
      {
        label: 'certferry, windows of a 144th of the lifetime',
        mark: { at: TARGET_RATIO, label: `target ${TARGET_RATIO}` },
        lines: spreads.map(({ run, lifetimes: rates }) => ({
          label: run.rule.name,
          points: rates.map(({ ratio }, index) => ({ x: index + 1, y: ratio })),
        })),
      },
    ],
    panelHeight: 260,
  })
}

/** From half an hour before an outage until things are quiet again, one panel for each rule. */
export function plotOutage(outages: readonly Disturbed[], title: string): string {
  const lasted = Math.max(...outages.map(({ from, to }) => to - from))
  const [before, after] = [HOUR_MS / 2, Math.max(1.5 * HOUR_MS, lasted / 4)]
  const end = (lasted + after) / HOUR_MS
  const panels = outages.map(({ run, from }) => {
    const stretch = { from: from - before, to: from + lasted + after, windowMs: MINUTE_MS, unitMs: HOUR_MS }
    return { label: run.rule.name, lines: [{ isStepped: true, points: pointsOf(run, stretch, from) }] }
  })
  const ticks = upTo(end, end > 4 ? 1 : 0.5)
  const x = { label: 'hours since the begin of the outage', from: -before / HOUR_MS, to: end, ticks }
  const shade = { from: 0, to: lasted / HOUR_MS, label: end > 2.2 ? 'Vault away: tries, none of them served' : 'away' }
  return renderChart({ title, x, y: rateAxis(panels), shade, panels, panelHeight: 130 })
}

/** From 1 to the power of ten above all; nothing at all is drawn at 1 as well. */
function rateAxis(panels: readonly Panel[]): Axis {
  const peak = panels.reduce(
    (most, { lines }) =>
      lines.reduce((more, { points }) => points.reduce((top, { y }) => Math.max(top, y), more), most),
    10,
  )
  const ticks = Array.from({ length: Math.ceil(Math.log10(peak)) + 1 }, (_, power) => 10 ** power)
  return { label: 'requests a minute', from: 1, to: ticks.at(-1) ?? 10, ticks, isLog: true }
}

interface Stretch {
  readonly from: number
  readonly to: number
  readonly windowMs: number
  readonly unitMs: number
}

/** Requests a minute, each value at the begin of its window. */
function pointsOf({ asked }: Run, { from, to, windowMs, unitMs }: Stretch, origin = 0): Point[] {
  const first = Math.ceil(from / windowMs) * windowMs
  return countsOf(asked, { from, to }, windowMs).map((count, index) => ({
    x: (first + index * windowMs - origin) / unitMs,
    y: (count * MINUTE_MS) / windowMs,
  }))
}

const upTo = (end: number, step: number) =>
  Array.from({ length: Math.floor(end / step) + 1 }, (_, index) => index * step)
