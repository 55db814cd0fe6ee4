import type { Writable } from 'node:stream'
import { styleText } from 'node:util'
import type { Finding } from '../core/finding.ts'
import type { Ending } from '../supervisor/ending.ts'
import type { Self } from '../supervisor/init.ts'
import type { SignalSource } from '../supervisor/signals.ts'

/** What a command sees of the process it runs in; tests give their own. */
export interface Io {
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number }
  readonly stderr: Writable & { readonly isTTY?: boolean; readonly columns?: number }
  readonly env: Readonly<Record<string, string | undefined>>
  /** Program and arguments that start this program again. */
  readonly self: readonly string[]
  /** Aborts on the first SIGTERM or SIGINT, and when the time given with --timeout is up. */
  readonly signal: AbortSignal
  /** Calls back at each SIGHUP; without a listener SIGHUP ends the process, as usual. */
  readonly onHangup: (listener: () => void) => void
  /** The process itself, for a command that another program takes the place of. */
  readonly process: Self & Ending
  /** From here on no signal ends this process: they are the caller's. */
  readonly releaseSignals: () => SignalSource
}

export const print = (io: Pick<Io, 'stdout'>, text: string): void => {
  io.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
}

/** With its mark, and what to do about it beneath. */
export function printFinding(io: Pick<Io, 'stdout'>, { ok, what, fix }: Finding, indent = ''): void {
  const [style, sign] = ok
    ? (['green', '✓'] as const)
    : ok === false
      ? (['red', '✗'] as const)
      : (['yellow', '?'] as const)
  print(io, `${indent}${styleText(style, sign, { stream: io.stdout })} ${what}`)
  if (!ok && fix) print(io, `${indent}  ${styleText('dim', `→ ${fix}`, { stream: io.stdout })}`)
}

/** `1 certificate`, `2 certificates`. */
export const count = (amount: number, thing: string): string => `${amount} ${thing}${amount === 1 ? '' : 's'}`

/** `2 certificates, 1 secret, 1 trust`. */
export const counts = ({
  certificates,
  secrets,
  trust,
}: Record<'certificates' | 'secrets' | 'trust', readonly unknown[]>): string =>
  [
    ...(certificates.length > 0 || secrets.length + trust.length === 0
      ? [count(certificates.length, 'certificate')]
      : []),
    ...(secrets.length > 0 ? [count(secrets.length, 'secret')] : []),
    ...(trust.length > 0 ? [count(trust.length, 'trust')] : []),
  ].join(', ')
