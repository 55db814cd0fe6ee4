import { styleText } from 'node:util'
import { quote } from '../core/secret.ts'
import { formatDuration } from '../core/units.ts'
import type { CertificateStatus, SecretStatus, SidecarStatus, TrustStatus } from './status.ts'

export interface TableOptions {
  readonly now: number
  readonly colour: boolean
  /** Columns of the terminal. */
  readonly width: number
}

type Style = Parameters<typeof styleText>[0]
interface Cell {
  readonly text: string
  readonly style?: Style
}

const GAP = '  '
const HEADS = ['NAME', 'PHASE', 'SERIAL', 'EXPIRES IN', 'RENEWS IN', 'ROTATED', 'SERVED']
const SECRET_HEADS = ['SECRET', 'PHASE', 'EXPIRES IN', 'LOOK IN', 'DELIVERED', 'VALUES']
const TRUST_HEADS = ['TRUST', 'PHASE', 'ENDS IN', 'LOOK IN', 'PUBLISHED', 'IN FORCE', 'CONTENT']
const PHASE_STYLES = { ACTIVE: 'green', PENDING: 'yellow', DEGRADED: 'yellow', EXPIRED: 'red' } as const
const NARROWEST_NAME = 12

/** The snapshot as tables for people: a row per certificate and per secret, the reason beneath those in trouble. Ends with a newline. */
export function renderStatus(status: SidecarStatus, options: TableOptions): string {
  const { now, colour, width } = options
  const paint = painter(colour)
  const { certificates, secrets, trust } = status
  const head = wrap(headline(status, now), width, ' · ').map((text) => paint({ text, style: 'dim' }))
  const notes = notesOf(status, now).flatMap((cell) =>
    wrap(cell.text.split(' '), width).map((text) => paint({ ...cell, text })),
  )
  const ofCertificates = tableOf(
    HEADS,
    certificates.map((one) => ({ row: rowOf(one, now), trouble: [...fallbackOf(one), ...troubleOf(one, now)] })),
    options,
  )
  const ofSecrets = tableOf(
    SECRET_HEADS,
    secrets.map((one) => ({ row: secretRowOf(one, now), trouble: troubleOf(one, now) })),
    options,
  )
  const ofTrust = tableOf(
    TRUST_HEADS,
    trust.map((one) => ({ row: trustRowOf(one, now), trouble: troubleOf(one, now) })),
    options,
  )
  return [
    ...head,
    ...notes,
    ...(certificates.length > 0 || secrets.length + trust.length === 0 ? ['', ...ofCertificates] : []),
    ...(secrets.length > 0 ? ['', ...ofSecrets] : []),
    ...(trust.length > 0 ? ['', ...ofTrust] : []),
    '',
  ].join('\n')
}

const painter = (colour: boolean) => (cell: Cell) =>
  colour && cell.style ? styleText(cell.style, cell.text, { validateStream: false }) : cell.text

interface Entry {
  readonly row: readonly Cell[]
  /** Beneath it. */
  readonly trouble: readonly Cell[]
}

function tableOf(heads: readonly string[], entries: readonly Entry[], { colour, width }: TableOptions): string[] {
  const paint = painter(colour)
  const titles = heads.map((text): Cell => ({ text, style: 'bold' }))
  const widths = fit([titles, ...entries.map(({ row }) => row)], width)
  const line = (cells: readonly Cell[]) =>
    cells
      .map((cell, column) =>
        // The last column needs no padding, which colours would hide from trimEnd.
        paint(column === heads.length - 1 ? cell : { ...cell, text: pad(cell.text, widths[column] ?? 0) }),
      )
      .join(GAP)
  const rows = entries.flatMap(({ row, trouble }) => [
    line(row),
    ...trouble.flatMap((cell) =>
      wrap(cell.text.split(' '), width - 4).map((text) => `    ${paint({ ...cell, text })}`),
    ),
  ])
  return [line(titles), ...rows]
}

/** `certferry 0.1.0 · up 3h 2m · 2 active, 1 degraded · Vault https://vault:8200 (token for 45m)`, in its parts. */
function headline({ version, startedAt, vault, certificates, secrets, trust }: SidecarStatus, now: number): string[] {
  const phases = Map.groupBy([...certificates, ...secrets, ...trust], ({ phase }) => phase.toLowerCase())
  const counts = [...phases].map(([phase, group]) => `${group.length} ${phase}`).join(', ')
  const token = vault?.tokenExpiresAt ? ` (token for ${formatDuration(Math.max(vault.tokenExpiresAt - now, 0))})` : ''
  return [
    `certferry ${version}`,
    `up ${formatDuration(Math.max(now - startedAt, 0))}`,
    counts || 'no certificates',
    ...(vault ? [`Vault ${vault.address}${token}`] : []),
  ]
}

const notesOf = ({ config }: SidecarStatus, now: number): Cell[] =>
  config.lastReloadOk
    ? []
    : [
        {
          text: `config ${config.file} was rejected, the one loaded ${ago(config.loadedAt, now)} stays: ${quote(config.error ?? 'unknown reason')}`,
          style: 'yellow',
        },
      ]

function rowOf(certificate: CertificateStatus, now: number): Cell[] {
  const { name, phase, serial, notAfter, renewAt, lastRotationAt } = certificate
  return [
    { text: name },
    { text: phase, style: PHASE_STYLES[phase] },
    { text: shortSerial(serial) },
    notAfter === null ? NOTHING : left(notAfter, now, { text: 'expired', style: 'red' }),
    renewAt === null ? NOTHING : left(renewAt, now, { text: 'due' }),
    lastRotationAt === null ? NOTHING : { text: ago(lastRotationAt, now) },
    servedCell(certificate),
  ]
}

const fallbackOf = ({ fallback, origin }: CertificateStatus): Cell[] =>
  fallback ? [{ text: `from a fallback: ${quote(origin ?? '')}`, style: 'yellow' }] : []

const NOTHING: Cell = { text: '–', style: 'dim' }

/** Serials are 20 bytes; the two ends tell them apart. */
const shortSerial = (serial: string | null): string =>
  serial === null ? '–' : serial.length <= 9 ? serial : `${serial.slice(0, 4)}…${serial.slice(-4)}`

/** Whether clients get what is on disk. */
function servedCell({ servedEqualsDisk, served, verified }: CertificateStatus): Cell {
  if (servedEqualsDisk === true) return { text: '✓', style: 'green' }
  if (servedEqualsDisk === false) return { text: '✗ another', style: 'red' }
  if (served && !served.up) return { text: verified === 'pending' ? '… waiting' : '✗ down', style: 'yellow' }
  return verified === 'pending' ? { text: '… pending', style: 'yellow' } : NOTHING
}

function secretRowOf({ name, phase, expiresAt, nextAt, deliveredAt, values }: SecretStatus, now: number): Cell[] {
  return [
    { text: name },
    { text: phase, style: PHASE_STYLES[phase] },
    expiresAt === null ? NOTHING : left(expiresAt, now, { text: 'expired', style: 'red' }),
    nextAt === null ? NOTHING : left(nextAt, now, { text: 'due' }),
    deliveredAt === null ? NOTHING : { text: ago(deliveredAt, now) },
    {
      text: values
        .map(({ name: value, version }) => (version?.startsWith('v') ? `${value} ${version}` : value))
        .join(', '),
    },
  ]
}

function trustRowOf(
  { name, phase, notAfter, nextAt, publishedAt, verified, anchors, crls }: TrustStatus,
  now: number,
): Cell[] {
  const retiring = anchors.filter((anchor) => anchor.retiring).length
  const content = [
    `${anchors.length} CA${anchors.length === 1 ? '' : 's'}${retiring > 0 ? `, ${retiring} retiring` : ''}`,
    ...(crls.length > 0 ? [`${crls.length} CRL${crls.length === 1 ? '' : 's'}`] : []),
  ]
  return [
    { text: name },
    { text: phase, style: PHASE_STYLES[phase] },
    notAfter === null ? NOTHING : left(notAfter, now, { text: 'ended', style: 'red' }),
    nextAt === null ? NOTHING : left(nextAt, now, { text: 'due' }),
    publishedAt === null ? NOTHING : { text: ago(publishedAt, now) },
    verified === 'none' ? NOTHING : { text: verified, style: verified === 'verified' ? 'green' : 'yellow' },
    { text: content.join(', ') },
  ]
}

/** Beneath a certificate or a secret: what is wrong, when it is tried again, what to do. */
function troubleOf(
  { lastError, reason, failures, nextAt }: CertificateStatus | SecretStatus | TrustStatus,
  now: number,
): Cell[] {
  if (!lastError) return []
  const next = nextAt === null ? '' : nextAt <= now ? ', next try now' : `, next try in ${formatDuration(nextAt - now)}`
  const tries = failures > 1 ? `, ${failures} failures` : ''
  const what = `${reason ?? lastError.code.toLowerCase()}: ${quote(lastError.message)}`
  return [
    { text: `${what} (${lastError.stage}, ${ago(lastError.at, now)}${tries}${next})`, style: 'yellow' },
    { text: quote(lastError.hint), style: 'dim' },
  ]
}

const left = (instant: number, now: number, over: Cell): Cell =>
  instant <= now ? over : { text: formatDuration(instant - now) }
const ago = (instant: number, now: number) => `${formatDuration(Math.max(now - instant, 0))} ago`

/** Widths of the columns; names give way first where the terminal is narrow. */
function fit(rows: readonly (readonly Cell[])[], width: number): number[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.text.length ?? 0)))
  const excess = widths.reduce((sum, each) => sum + each, GAP.length * (widths.length - 1)) - width
  const [name = 0, ...others] = widths
  return excess > 0 ? [Math.max(name - excess, Math.min(name, NARROWEST_NAME)), ...others] : widths
}

const pad = (text: string, width: number) =>
  (text.length > width ? `${text.slice(0, Math.max(width - 1, 0))}…` : text).padEnd(width)

/** Fills lines with `parts` so that none is longer than `width`, where the parts allow it. */
function wrap(parts: readonly string[], width: number, separator = ' '): string[] {
  const lines: string[] = []
  for (const part of parts) {
    const longer = `${lines.at(-1)}${separator}${part}`
    if (lines.length > 0 && longer.length <= width) lines.splice(-1, 1, longer)
    else lines.push(part)
  }
  return lines
}
