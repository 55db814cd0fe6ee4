import { styleText } from 'node:util'
import { formatDuration } from '../core/units.ts'
import type { CertificateStatus } from '../observe/status.ts'
import type { Tally } from './client.ts'

/** What the demo shows at one moment. */
export interface Scene {
  readonly certificate: CertificateStatus
  readonly tally: Tally
  readonly now: number
  /** Base of the HTTP endpoints, such as http://127.0.0.1:1234. */
  readonly admin: string
  readonly directory: string
}

const BAR = 30

/** The picture as lines, without any cursor movement. Colours where the stream has them. */
export function drawScene(
  { certificate, tally, now, admin, directory }: Scene,
  stream: NodeJS.WritableStream,
): string[] {
  const paint = (style: Parameters<typeof styleText>[0], text: string) => styleText(style, text, { stream })
  const row = (name: string, text: string) => `  ${paint('dim', name.padEnd(12))}${text}`
  const { phase, serial, notAfter, lastRotationAt, renewAt, verifiedAt } = certificate
  const phaseStyle = phase === 'ACTIVE' ? 'green' : phase === 'EXPIRED' ? 'red' : 'yellow'
  const ago = (at: number | null) => (at === null ? 'not yet' : `${formatDuration(Math.max(now - at, 0))} ago`)
  return [
    '',
    `  ${paint('bold', 'certferry demo')}  a CA in a folder, a TLS server, a client that never stops`,
    '',
    row('phase', paint([phaseStyle, 'bold'], phase)),
    row(
      'served',
      serial === null
        ? 'nothing yet'
        : `serial ${short(tally.serials.at(-1) ?? serial)}  expires in ${left(notAfter, now)}`,
    ),
    row(
      '',
      notAfter === null || lastRotationAt === null
        ? ''
        : paint('green', bar((notAfter - now) / (notAfter - lastRotationAt))),
    ),
    row('rotations', `${rotations(tally)} seen by the client, the last proven ${ago(verifiedAt)}`),
    row(
      'handshakes',
      `${paint('green', `${tally.made.toLocaleString('en')} made`)} · ${paint(tally.failed > 0 ? ['red', 'bold'] : 'green', `${tally.failed} failed`)}`,
    ),
    row('next', renewAt === null ? '' : `renewal ${renewAt > now ? `in ${left(renewAt, now)}` : 'now'}`),
    ...(tally.lastFailure === undefined ? [] : [row('failure', paint('red', tally.lastFailure))]),
    '',
    row('files', directory),
    row('metrics', `${admin}/metrics`),
    row('status', `${admin}/status`),
    '',
    paint('dim', '  Ctrl-C ends it.'),
    '',
  ]
}

/** Certificates seen after the first. */
export const rotations = (tally: Tally): number => Math.max(tally.serials.length - 1, 0)

export const short = (serial: string): string => (serial.length > 12 ? `${serial.slice(0, 12)}…` : serial)

const left = (at: number | null, now: number) => (at === null ? '?' : formatDuration(Math.max(at - now, 0)))

function bar(share: number): string {
  const full = Math.round(Math.min(Math.max(share, 0), 1) * BAR)
  return '━'.repeat(full) + '┄'.repeat(BAR - full)
}
