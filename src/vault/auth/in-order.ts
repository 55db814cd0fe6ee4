import type { Clock } from '../../clock.ts'
import { type ErrorCode, SidecarError } from '../../errors.ts'
import type { AuthMethod } from './auth.ts'
import { sparing } from './sparing.ts'

/** One of several methods, with the name that it has in messages, such as `vault.auth[1] approle`. */
export interface NamedMethod {
  readonly name: string
  readonly method: AuthMethod
}

interface Deps {
  readonly clock: Clock
  /** Something a person should know; the same text is told once. */
  readonly warn: (message: string) => void
}

/** The method itself has failed; anything else is trouble on the way to Vault, which the next method would meet as well. */
const FOR_GOOD: readonly ErrorCode[] = ['AUTH_FAILED', 'AUTH_PERMANENT', 'AUTH_SOURCE', 'WRAP_REUSED']

/**
 * Tries one method after the other, at each login from the first on. Each spares what was refused by itself, so the attempt as a whole
 * never counts as one that was refused before.
 */
export function inOrder(methods: readonly NamedMethod[], { clock, warn }: Deps): AuthMethod {
  const spared = methods.map(({ name, method }) => ({ name, method: sparing(method, clock) }))
  let attempts = 0

  return {
    prepare: async () => {
      attempts += 1
      return { fingerprint: `${attempts}`, login: tryAll }
    },
  }

  async function tryAll(signal: AbortSignal) {
    const failures: Failure[] = []
    for (const { name, method } of spared) {
      try {
        const login = await (await method.prepare(signal)).login(signal)
        // What is only held back was told when it was refused.
        for (const { error, ...failed } of failures.filter(({ error }) => error.retryAfterMs === undefined))
          warn(`logged in by ${name}, since ${failed.name} failed: ${error.message}`)
        return login
      } catch (error) {
        if (!(error instanceof SidecarError) || !FOR_GOOD.includes(error.code)) throw error
        failures.push({ name, error })
      }
    }
    throw together(failures)
  }
}

interface Failure {
  readonly name: string
  readonly error: SidecarError
}

/** What all methods have met: with the code they share, if they do, and not before the first of those held back may be tried again. */
function together(failures: readonly Failure[]): SidecarError {
  const [code = 'AUTH_FAILED', ...others] = new Set(failures.map(({ error }) => error.code))
  const pauses = failures.map(({ error }) => error.retryAfterMs ?? 0)
  const earliest = Math.min(...pauses)
  return new SidecarError(
    others.length === 0 ? code : 'AUTH_FAILED',
    `no login worked: ${failures.map(({ name, error }) => `${name}: ${error.message}`).join('; ')}`,
    { cause: failures.at(-1)?.error, retryAfterMs: earliest > 0 ? earliest : undefined },
  )
}
