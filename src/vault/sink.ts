import * as z from 'zod'
import { abortable } from '../abortable.ts'
import type { Clock } from '../clock.ts'
import type { Secret } from '../core/secret.ts'
import { Duration, Mode } from '../core/units.ts'
import { toSidecarError } from '../errors.ts'
import { AbsolutePath } from './auth/credential.ts'

const Id = z
  .int()
  .min(0)
  .max(2 ** 32 - 2)

/** Config: a file that others read the token from. */
export const TokenSink = z.strictObject({
  file: AbsolutePath.describe(
    'Replaced at once with each token of another login, without a line end, so that nobody reads half of one',
  ),
  mode: Mode.refine((mode) => (mode & 0o400) !== 0 && (mode & 0o137) === 0, {
    error: "must let its owner read it, and give others nothing but reading to the group: '0600' or '0640'",
  })
    .prefault('0600')
    .describe('Mode of the file'),
  uid: Id.optional().describe('Owner of the file, where it is not the user certferry runs as'),
  gid: Id.optional().describe('Group of the file'),
  wrapTtl: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
    .optional()
    .describe(
      'When given, the file holds a response-wrapping token that lives so long, and gives the token once: data.token of sys/wrapping/unwrap',
    ),
})
export type TokenSink = z.output<typeof TokenSink>

/** Keeps the file of the token in use up to date. */
export interface Sink extends AsyncDisposable {
  /** Has it written unless it was the last one offered; returns at once. What fails is told, and tried again until there is another token. */
  offer(token: Secret): void
}

interface SinkDeps {
  readonly clock: Clock
  /** POST sys/wrapping/wrap. */
  readonly wrap: (token: Secret, ttlMs: number, signal: AbortSignal) => Promise<Secret>
  readonly write: (sink: TokenSink, token: Secret) => Promise<void>
  /** The same text is told once. */
  readonly warn: (message: string) => void
}

/** Pause after a failure, doubled up to the second figure. */
const RETRY_MS = [5_000, 300_000] as const
/** How long the end waits for a token that is just being written. */
const CLOSING_MS = 2_000

export function createSink(sink: TokenSink, { clock, wrap, write, warn }: SinkDeps): Sink {
  const closing = new AbortController()
  let offered: Secret | undefined
  let newer = new AbortController()
  let last = Promise.resolve()

  return {
    offer: (token) => {
      if (token.reveal() === offered?.reveal()) return
      offered = token
      newer.abort()
      newer = new AbortController()
      const { signal } = newer
      // One after the other, so that the latest is what stays.
      last = last.then(() => put(token, signal))
    },
    [Symbol.asyncDispose]: async () => {
      closing.abort()
      await abortable(last, AbortSignal.timeout(CLOSING_MS)).catch(() => undefined)
      newer.abort()
    },
  }

  async function put(token: Secret, isOld: AbortSignal): Promise<void> {
    const { wrapTtl, file } = sink
    for (let pause: number = RETRY_MS[0]; !isOld.aborted; pause = Math.min(pause * 2, RETRY_MS[1])) {
      try {
        const shown = wrapTtl === undefined ? token : await wrap(token, wrapTtl, isOld)
        if (isOld.aborted) return
        return await write(sink, shown)
      } catch (error) {
        if (isOld.aborted) return
        warn(`the token was not written to ${file}: ${toSidecarError(error).message}`)
      }
      await clock.sleep(pause, AbortSignal.any([isOld, closing.signal])).catch(() => undefined)
      if (closing.signal.aborted) return
    }
  }
}
