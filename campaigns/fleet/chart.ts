/** A plot without script that reads well in light and in dark mode, as text. */
export interface Chart {
  readonly title: string
  readonly x: Axis
  readonly y: Axis
  /** One below the other, with the same axes. */
  readonly panels: readonly Panel[]
  readonly panelHeight: number
  /** A stretch of x that stands out, such as an outage. */
  readonly shade?: { readonly from: number; readonly to: number; readonly label: string } | undefined
}

export interface Axis {
  /** With the unit. */
  readonly label: string
  readonly from: number
  readonly to: number
  readonly ticks: readonly number[]
  /** Logarithmic; what is below `from` is drawn at `from`. */
  readonly isLog?: boolean
}

export interface Panel {
  readonly label: string
  readonly lines: readonly Line[]
  /** A level to compare with. */
  readonly mark?: { readonly at: number; readonly label: string } | undefined
}

export interface Line {
  /** Written at its right end. */
  readonly label?: string
  readonly points: readonly Point[]
  /** Each value holds until the next x: counts in windows. */
  readonly isStepped?: boolean
}

export interface Point {
  readonly x: number
  readonly y: number
}

const WIDTH = 860
const LEFT = 76
const TOP = 46
const GAP = 34
const BOTTOM = 52
const COLOURS = 5

const STYLE = `.bg{fill:#fff}text{fill:#1f2328;font:12px system-ui,sans-serif}.title{font-size:15px;font-weight:600}.name{font-weight:600}
.grid{stroke:#d1d9e0;stroke-width:1}.mark{stroke:#59636e;stroke-width:1;stroke-dasharray:5 4}.line{fill:none;stroke-width:1.5;stroke-linejoin:round}
.shade{fill:#cf222e;opacity:.13}.s0{stroke:#0969da}.s1{stroke:#bc4c00}.s2{stroke:#8250df}.s3{stroke:#1a7f37}.s4{stroke:#bf3989}
@media(prefers-color-scheme:dark){.bg{fill:#0d1117}text{fill:#e6edf3}.grid{stroke:#3d444d}.mark{stroke:#9198a1}.shade{fill:#f85149;opacity:.22}
.s0{stroke:#4493f8}.s1{stroke:#f0883e}.s2{stroke:#ab7df8}.s3{stroke:#3fb950}.s4{stroke:#db61a2}}`

export function renderChart(chart: Chart): string {
  const right = chart.panels.some(({ lines }) => lines.some(({ label }) => label !== undefined)) ? 216 : 24
  const area = { left: LEFT, right: WIDTH - right }
  const height = TOP + chart.panels.length * (chart.panelHeight + GAP) - GAP + BOTTOM
  const frames = chart.panels.map((panel, index) => {
    const top = TOP + index * (chart.panelHeight + GAP)
    return { panel, index, top, bottom: top + chart.panelHeight, ...area }
  })
  const last = frames.at(-1)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${escaped(chart.title)}">`,
    `<style>${STYLE}</style>`,
    `<rect class="bg" width="${WIDTH}" height="${height}"/>`,
    text(LEFT, 20, chart.title, { class: 'title' }),
    ...frames.map((frame) => renderPanel(chart, frame)),
    ...(last ? [renderXLabels(chart.x, last)] : []),
    '</svg>\n',
  ].join('\n')
}

interface Frame {
  readonly panel: Panel
  readonly index: number
  readonly top: number
  readonly bottom: number
  readonly left: number
  readonly right: number
}

function renderPanel({ x, y, shade, panels }: Chart, frame: Frame): string {
  const { panel, index, top, bottom, left, right } = frame
  const toX = scale(x, left, right)
  const toY = scale(y, bottom, top)
  const colour = (line: number) => (panels.length > 1 ? index : line) % COLOURS
  const middle = (top + bottom) / 2
  const turned = { anchor: 'middle', transform: `rotate(-90 16 ${middle})` }
  return [
    ...(shade ? [renderShade(shade, { toX, frame })] : []),
    ...y.ticks.map((tick) => rule(left, right, toY(tick), 'grid')),
    ...y.ticks.map((tick) => text(left - 8, toY(tick) + 4, number(tick), { anchor: 'end' })),
    text(16, middle, y.label, turned),
    text(left, top - 7, panel.label, { class: 'name' }),
    ...(panel.mark ? renderMark(panel.mark, { toY, frame }) : []),
    ...panel.lines.map((line, at) => `<path class="line s${colour(at)}" d="${pathOf(line, toX, toY)}"/>`),
    ...renderLineLabels(panel.lines, toY, frame),
  ].join('\n')
}

type Scale = (value: number) => number

function scale({ from, to, isLog = false }: Axis, start: number, end: number): Scale {
  const measure = isLog ? (value: number) => Math.log(Math.max(value, from)) : (value: number) => value
  const [low, high] = [measure(from), measure(to)]
  return (value) => round(start + ((measure(value) - low) / (high - low)) * (end - start))
}

function renderShade({ from, to, label }: NonNullable<Chart['shade']>, { toX, frame }: { toX: Scale; frame: Frame }) {
  const { top, bottom, index } = frame
  const width = round(Math.max(toX(to) - toX(from), 1))
  const box = `<rect class="shade" x="${toX(from)}" y="${top}" width="${width}" height="${bottom - top}"/>`
  return index === 0 ? `${box}\n${text(toX(from) + 5, top + 14, label, {})}` : box
}

function renderMark({ at, label }: NonNullable<Panel['mark']>, { toY, frame }: { toY: Scale; frame: Frame }) {
  const { left, right } = frame
  return [rule(left, right, toY(at), 'mark'), text(right, toY(at) - 5, label, { anchor: 'end' })]
}

function pathOf({ points, isStepped = false }: Line, toX: Scale, toY: Scale): string {
  let drawn = ''
  let y: number | undefined
  for (const point of points) {
    const [atX, atY] = [toX(point.x), toY(point.y)]
    if (y === undefined) drawn = `M${atX} ${atY}`
    else if (!isStepped) drawn += `L${atX} ${atY}`
    else if (atY !== y) drawn += `H${atX}V${atY}`
    y = atY
  }
  const last = points.at(-1)
  return last && isStepped ? `${drawn}H${toX(last.x)}` : drawn
}

/** At the ends of the lines, moved apart where they would meet, the last one no lower than the panel. */
function renderLineLabels(lines: readonly Line[], toY: Scale, { right, bottom }: Frame): string[] {
  const ends = lines.flatMap(({ label, points }, index) => {
    const last = points.at(-1)
    return label === undefined || !last ? [] : [{ label, index, y: toY(last.y) }]
  })
  const sorted = ends.toSorted((a, b) => a.y - b.y)
  let above = Number.NEGATIVE_INFINITY
  const apart = sorted.map(({ y }) => {
    above = Math.max(y, above + 15)
    return above
  })
  const tooLow = Math.max(above - bottom, 0)
  return sorted.flatMap(({ label, index }, at) => {
    const y = round((apart[at] ?? 0) - tooLow)
    const key = `<path class="line s${index % COLOURS}" d="M${right + 6} ${y}h12"/>`
    return [key, text(right + 22, y + 4, label, {})]
  })
}

function renderXLabels({ ticks, label, ...axis }: Axis, { left, right, bottom }: Frame): string {
  const toX = scale({ ticks, label, ...axis }, left, right)
  return [
    ...ticks.map((tick) => text(toX(tick), bottom + 18, number(tick), { anchor: 'middle' })),
    text((left + right) / 2, bottom + 40, label, { anchor: 'middle' }),
  ].join('\n')
}

const rule = (from: number, to: number, y: number, name: string) => `<path class="${name}" d="M${from} ${y}H${to}"/>`

interface TextStyle {
  readonly class?: string
  readonly anchor?: string
  readonly transform?: string
}

function text(x: number, y: number, content: string, { anchor, ...style }: TextStyle): string {
  const attributes = { ...style, ...(anchor === undefined ? {} : { 'text-anchor': anchor }) }
  const written = Object.entries(attributes).map(([name, value]) => ` ${name}="${value}"`)
  return `<text x="${x}" y="${y}"${written.join('')}>${escaped(content)}</text>`
}

const round = (value: number) => Math.round(value * 10) / 10
const number = (value: number) => value.toLocaleString('en-US')
const escaped = (content: string) => content.replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`)
