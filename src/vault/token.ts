import { abortable } from '../abortable.ts'
import type { Clock } from '../clock.ts'
import type { Secret } from '../core/secret.ts'
import { type ErrorCode, toSidecarError } from '../errors.ts'
import type { AuthMethod, Login } from './auth/auth.ts'
import { sparing } from './auth/sparing.ts'

/** The token is renewed, or replaced, after this share of its life. */
const REFRESH = 2 / 3
/** A token is not refreshed sooner: near its end one that cannot be replaced would be asked about in ever smaller steps. */
const SHORTEST_MS = 1000
/** A renewal that gives less than this share of the full life has met the max TTL. */
const CAPPED = 0.9
/** Pause after a failed renewal, doubled up to the second figure. */
const RETRY_MS = [30_000, 300_000] as const

/** The one token that all requests share. */
export interface Tokens extends AsyncDisposable {
  /** The token in hand; logs in when there is none. Throws AUTH_SOURCE, AUTH_FAILED, AUTH_PERMANENT, WRAP_REUSED or what the login met. */
  get(signal: AbortSignal): Promise<Secret>
  /** What to use after Vault refused `refused` (403): one login, shared by all who were refused. */
  replace(refused: Secret, signal: AbortSignal): Promise<Secret>
  /** Gives the token in hand away, to be revoked; undefined where there is none, or somebody else obtained it. */
  surrender(): Secret | undefined
}

export interface TokenDeps {
  readonly auth: AuthMethod
  readonly clock: Clock
  /** POST auth/token/renew-self; undefined when Vault does not renew this token. */
  readonly renew: (token: Secret, signal: AbortSignal) => Promise<Login | undefined>
  readonly onToken: (event: { expiresAt: number | undefined; renewable: boolean; how: 'login' | 'renewed' }) => void
  readonly onTokenFailed: (event: { code: ErrorCode; message: string; nextAt: number }) => void
  /** The token that is used from now on; after a renewal it is mostly the same. */
  readonly onHeld?: (token: Secret) => void
}

interface Held extends Login {
  /** By `clock.elapsed()`. */
  readonly obtainedAt: number
  /** The longest life it was ever given; less than that means that its max TTL is near. */
  readonly fullTtlMs: number
}

/**
 * Logs in when first asked. From then on a watcher renews the token at 2/3 of its life, and logs in again when it cannot be renewed,
 * so that a credential good for one login lasts. The old token is not revoked: that would revoke certificates leased to it.
 */
export function createTokens({ auth, clock, renew, onToken, onTokenFailed, onHeld }: TokenDeps): Tokens {
  const method = sparing(auth, clock)
  const closed = new AbortController()
  let held: Held | undefined
  let pending: Promise<Held> | undefined
  let watcher = new AbortController()

  const isAlive = ({ ttlMs, obtainedAt }: Held) => ttlMs === 0 || clock.elapsed() < obtainedAt + ttlMs

  const login = () => {
    pending ??= logIn().finally(() => {
      pending = undefined
    })
    return pending
  }

  return {
    get: async (signal) => {
      signal.throwIfAborted()
      if (held && isAlive(held)) return held.token
      return (await abortable(login(), signal)).token
    },
    replace: async (old, signal) => {
      if (held?.token === old) held = undefined
      if (held && isAlive(held)) return held.token
      return (await abortable(login(), signal)).token
    },
    surrender: () => {
      const last = held
      held = undefined
      watcher.abort()
      return last && isAlive(last) && !last.isGiven ? last.token : undefined
    },
    [Symbol.asyncDispose]: async () => {
      closed.abort(new DOMException('Vault client closed', 'AbortError'))
      watcher.abort()
      await pending?.catch(() => undefined)
    },
  }

  async function logIn(): Promise<Held> {
    const attempt = await method.prepare(closed.signal)
    return keep(await attempt.login(closed.signal), 'login')
  }

  function keep(login: Login, how: 'login' | 'renewed'): Held {
    const fullTtlMs = how === 'login' ? login.ttlMs : Math.max(login.ttlMs, held?.fullTtlMs ?? 0)
    const renewable = login.renewable && login.ttlMs >= fullTtlMs * CAPPED
    const isGiven = (how === 'login' ? login : held)?.isGiven ?? false
    held = { ...login, isGiven, renewable, obtainedAt: clock.elapsed(), fullTtlMs }
    onHeld?.(held.token)
    onToken({ expiresAt: login.ttlMs === 0 ? undefined : clock.now() + login.ttlMs, renewable, how })
    watcher.abort()
    watcher = new AbortController()
    if (login.ttlMs > 0) void watch(held, AbortSignal.any([closed.signal, watcher.signal]))
    return held
  }

  /** Ends when `token` was refreshed, for then another watch has begun; when it ran out, for then the next request logs in; or on abort. */
  async function watch(token: Held, signal: AbortSignal): Promise<void> {
    const expiresAt = token.obtainedAt + token.ttlMs
    let dueAt = token.obtainedAt + Math.max(token.ttlMs * REFRESH, SHORTEST_MS)
    for (let failures = 1; dueAt < expiresAt; failures += 1) {
      try {
        await sleepUntil(dueAt, signal)
        await refresh(token, signal)
        return
      } catch (error) {
        if (signal.aborted) return
        dueAt = clock.elapsed() + doubling(RETRY_MS, failures) * (1 + clock.random() / 4)
        const { code, message } = toSidecarError(error)
        onTokenFailed({ code, message, nextAt: clock.now() + dueAt - clock.elapsed() })
      }
    }
  }

  async function sleepUntil(at: number, signal: AbortSignal): Promise<void> {
    while (clock.elapsed() < at) await clock.sleep(Math.ceil(at - clock.elapsed()), signal)
  }

  async function refresh(token: Held, signal: AbortSignal): Promise<void> {
    const renewed = token.renewable ? await renew(token.token, signal) : undefined
    // A request may have replaced the token meanwhile.
    signal.throwIfAborted()
    // In its last second Vault renews it for 0 s, which elsewhere means for ever.
    if (renewed && renewed.ttlMs > 0) keep(renewed, 'renewed')
    else await login()
  }
}

const doubling = ([first, longest]: readonly [number, number], times: number) =>
  Math.min(first * 2 ** (times - 1), longest)
