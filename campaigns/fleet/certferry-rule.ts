import { countedLifetime, mayIssueAt, recentIssues } from '../../src/core/budget.ts'
import type { Bundle } from '../../src/core/bundle.ts'
import type { RenewalPolicy } from '../../src/core/renewal.ts'
import { decide, evolve, hurried, initialState, isHeldOff, type Outcome, type Policy } from '../../src/core/state.ts'
import { type ErrorCode, SidecarError, toSidecarError } from '../../src/errors.ts'
import { createBreaker } from '../../src/vault/breaker.ts'
import { bundleAt } from '../../test/support/harness.ts'
import type { Rule, Sidecar, World } from './sidecar.ts'
import type { Answer } from './vault-model.ts'

/** The defaults of the config, for lifetimes of 10 days or less. */
const DEFAULT_JITTER = 0.1
const AFTER = 1 / 2
const PATIENCE = { connectMs: 3_000, answerMs: 10_000 }

export interface CertferryOptions {
  readonly name?: string
  readonly after?: number
  readonly jitter?: number
  /** What if the first certificate of a sidecar had a jitter of its own? No such option exists. */
  readonly firstJitter?: number
}

/** certferry itself: what decides is the code of `src/core` and the circuit breaker; the loop around it is in `createSidecar`. */
export function certferry({
  name = 'certferry',
  after,
  jitter = DEFAULT_JITTER,
  firstJitter = jitter,
}: CertferryOptions = {}): Rule {
  const renewal = (issued: number): RenewalPolicy => ({ after, jitter: issued === 0 ? firstJitter : jitter })
  return {
    name,
    words: `${(after ?? AFTER) * 100} % of the lifetime, up to ${jitter * 100} % of it earlier`,
    firstDue: (after ?? AFTER) - firstJitter,
    create: (index, world) => createSidecar(index, world, renewal),
  }
}

/** As `keep-fresh.ts` and `issuance.ts` do it, with a disk and a target that never fail. */
function createSidecar(index: number, world: World, renewal: (issued: number) => RenewalPolicy): Sidecar {
  const { clock, random, lifeMs, vault, ledger } = world
  const breaker = createBreaker(clock, (error) => countedAs(toSidecarError(error)))
  const seed = `${world.seed}-${index}`
  let issued = 0
  let issuedAt: readonly number[] = []
  let told = false
  /** Told, and not served yet. */
  let wanted = false
  let underWay: { readonly answer: Answer; readonly end: () => Promise<void> } | undefined

  const times = () => ({ now: clock.now(), elapsed: clock.elapsed(), random })
  const policy = (): Policy => ({ renewal: renewal(issued), seed })
  let state = initialState({ current: undefined, pending: undefined }, policy(), times(), 0)

  return {
    wake: async () => {
      if (underWay && underWay.answer.at > clock.now()) return underWay.answer.at
      await underWay?.end()
      return next()
    },
    tell: () => {
      told = true
      return underWay ? underWay.answer.at : next()
    },
  }

  function next(): number | Promise<number> {
    if (told) {
      told = false
      wanted = true
      state = hurried(state, times())
      return ask({ forced: true })
    }
    const task = decide(state, times(), undefined)
    if (wanted && !isHeldOff(state, times())) return ask({ forced: false })
    if (task.kind === 'wait') return task.until
    if (task.kind === 'renew') return ask({ forced: false })
    learn({ kind: 'served', bundle: task.bundle, verified: true, targetUp: true })
    return next()
  }

  async function ask({ forced }: { readonly forced: boolean }): Promise<number> {
    const now = clock.now()
    const before = recentIssues(issuedAt, now)
    const freeAt = forced ? now : budgetFreeAt(before, now)
    if (freeAt > now) {
      fail(new SidecarError('BUDGET_SPENT', 'simulated', { retryAfterMs: freeAt - now }))
      return next()
    }
    if (!forced) issuedAt = [...before, now]
    const answered = Promise.withResolvers<Bundle>()
    let answer: Answer | undefined
    const ended = breaker
      .run(() => {
        answer = vault.receive(now, PATIENCE)
        return answered.promise
      })
      .then(serve, (thrown: unknown) => {
        const error = toSidecarError(thrown)
        if (!error.mayHaveIssued) issuedAt = before
        fail(error)
      })
    if (!answer) {
      await ended
      return next()
    }
    underWay = { answer, end: () => settle(answered, ended) }
    return answer.at

    function settle({ resolve, reject }: typeof answered, settled: Promise<void>): Promise<void> {
      underWay = undefined
      if (answer?.kind === 'issued')
        resolve(bundleAt({ now: clock.now, truth: clock.now }, `${seed}-${issued}`, lifeMs))
      else if (answer) {
        ledger.failed(index, now, answer.kind)
        reject(ERRORS[answer.kind])
      }
      return settled
    }
  }

  function budgetFreeAt(before: readonly number[], now: number): number {
    const { serving } = state
    const isInService = serving !== undefined && now < serving.notAfter
    return mayIssueAt(before, now, { lifetimeMs: countedLifetime(serving, lifeMs), isInService })
  }

  function serve(bundle: Bundle): void {
    wanted = false
    ledger.issued(index, clock.now(), bundle.notAfter)
    learn({ kind: 'served', bundle, verified: true, targetUp: true })
    issued += 1
  }

  function fail(error: SidecarError): void {
    learn({ kind: 'failed', error, stage: 'fetch', inHand: undefined, onDisk: undefined, targetUp: false })
  }

  function learn(outcome: Outcome): void {
    state = evolve(state, outcome, policy(), times())
  }
}

/** What the client makes of each answer, as `vault/replies.ts` and `vault/failures.ts` tell; made once, since stacks cost more than all the rest. */
const ERRORS: Readonly<Record<Exclude<Answer['kind'], 'issued'>, SidecarError>> = {
  limited: new SidecarError('RATE_LIMITED', 'simulated'),
  refused: new SidecarError('VAULT_UNREACHABLE', 'simulated'),
  sealed: new SidecarError('VAULT_SEALED', 'simulated'),
  reset: new SidecarError('VAULT_UNREACHABLE', 'simulated', { mayHaveIssued: true }),
  unconnected: new SidecarError('VAULT_TIMEOUT', 'simulated'),
  timeout: new SidecarError('VAULT_TIMEOUT', 'simulated', { mayHaveIssued: true }),
}

/** As `vault/requests.ts` counts them. */
const CONNECTION_FAILURES: readonly ErrorCode[] = ['VAULT_UNREACHABLE', 'VAULT_TIMEOUT']
const countedAs = ({ code }: SidecarError) => (CONNECTION_FAILURES.includes(code) ? 'failure' : 'answer')
