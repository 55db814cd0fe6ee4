import type { Clock } from '../../clock.ts'
import { formatDuration } from '../../core/units.ts'
import { type ErrorCode, SidecarError } from '../../errors.ts'
import type { AuthMethod } from './auth.ts'

/** How long a credential that Vault refused is not tried again, doubled up to the second figure; five failed logins lock a role out. */
const REFUSED_MS = [5_000, 60_000] as const
const REFUSALS: readonly ErrorCode[] = ['AUTH_FAILED', 'AUTH_PERMANENT', 'WRAP_REUSED']

/** The same method, but a credential that Vault has just refused is not shown again at once; another one is. */
export function sparing(method: AuthMethod, clock: Clock): AuthMethod {
  let refused: { fingerprint: string; error: SidecarError; times: number; until: number } | undefined

  return {
    prepare: async (signal) => {
      const { fingerprint, login } = await method.prepare(signal)
      holdBack(fingerprint)
      return {
        fingerprint,
        login: async (signal) => {
          try {
            const given = await login(signal)
            refused = undefined
            return given
          } catch (error) {
            if (error instanceof SidecarError && REFUSALS.includes(error.code)) remember(fingerprint, error)
            throw error
          }
        },
      }
    },
  }

  function holdBack(fingerprint: string): void {
    if (refused?.fingerprint !== fingerprint || clock.elapsed() >= refused.until) return
    const { error, until } = refused
    const retryAfterMs = until - clock.elapsed()
    const message = `${error.message} (the same credential is tried again in ${formatDuration(retryAfterMs)})`
    throw new SidecarError(error.code, message, { cause: error, retryAfterMs })
  }

  function remember(fingerprint: string, error: SidecarError): void {
    const times = refused?.fingerprint === fingerprint ? refused.times + 1 : 1
    const [first, longest] = REFUSED_MS
    refused = { fingerprint, error, times, until: clock.elapsed() + Math.min(first * 2 ** (times - 1), longest) }
  }
}
