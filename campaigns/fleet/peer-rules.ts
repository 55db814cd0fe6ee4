import type { Rule, Sidecar, World } from './sidecar.ts'
import type { Answer } from './vault-model.ts'

const HOUR_MS = 3_600_000
/** The Vault client of both: a minute for the whole request. */
const PATIENCE = { connectMs: 60_000, answerMs: 60_000 }

/**
 * consul-template (and Vault Agent, which has it inside) with `pkiCert`: at 90 % of the lifetime, jitter zero (`dependency/vault_pki.go`: an
 * integer division makes it so); twelve more tries, 250 ms doubling to a minute without jitter (`config/retry.go`), then it exits. Whoever
 * runs it starts it again: here as Kubernetes does, after 10 s doubling to 5 min, from the beginning once it ran for 10 min.
 */
export const consulTemplate: Rule = {
  name: 'consul-template',
  words: '90 % of the lifetime, no jitter',
  firstDue: 0.9,
  create: (index, world) => createPeer(index, world, { after: 0.9, createPause: createRetries }),
}

const TRIES = 12
const RETRY = { first: 250, longest: 60_000 }
const RESTART = { first: 10_000, longest: 300_000, forgottenMs: 600_000 }

function createRetries(): Pause {
  let retries = 0
  let restarts = 0
  let startedAt = 0
  return {
    afterFailure: (now) => {
      if (retries < TRIES) {
        retries += 1
        return doubling(RETRY, retries)
      }
      if (now - startedAt > RESTART.forgottenMs) restarts = 0
      restarts += 1
      retries = 0
      const pause = doubling(RESTART, restarts)
      startedAt = now + pause
      return pause
    },
    succeeded: () => {
      retries = 0
    },
  }
}

/** cert-manager: at 2/3 of the lifetime, no jitter; an issuance that failed is tried again after 1 h, doubling to 32 h. */
export const certManager: Rule = {
  name: 'cert-manager',
  words: '2/3 of the lifetime, no jitter',
  firstDue: 2 / 3,
  create: (index, world) => createPeer(index, world, { after: 2 / 3, createPause: createIssuanceBackoff }),
}

function createIssuanceBackoff(): Pause {
  let failures = 0
  return {
    afterFailure: () => {
      failures += 1
      return doubling({ first: HOUR_MS, longest: 32 * HOUR_MS }, failures)
    },
    succeeded: () => {
      failures = 0
    },
  }
}

const doubling = ({ first, longest }: { readonly first: number; readonly longest: number }, times: number) =>
  Math.min(first * 2 ** (times - 1), longest)

/** How long one of them waits after a failure, ms. */
interface Pause {
  afterFailure(now: number): number
  succeeded(): void
}

interface PeerOptions {
  /** Share of the lifetime. */
  readonly after: number
  readonly createPause: () => Pause
}

function createPeer(
  index: number,
  { clock, vault, lifeMs, ledger }: World,
  { after, createPause }: PeerOptions,
): Sidecar {
  const pause = createPause()
  let underWay: { readonly sentAt: number; readonly answer: Answer } | undefined

  return { wake: () => (underWay ? learn(underWay) : ask()), tell: () => underWay?.answer.at ?? ask() }

  function ask(): number {
    const sentAt = clock.now()
    underWay = { sentAt, answer: vault.receive(sentAt, PATIENCE) }
    return underWay.answer.at
  }

  function learn({ sentAt, answer }: NonNullable<typeof underWay>): number {
    const now = clock.now()
    if (answer.at > now) return answer.at
    underWay = undefined
    if (answer.kind === 'issued') {
      pause.succeeded()
      ledger.issued(index, now, now + lifeMs)
      return now + after * lifeMs
    }
    ledger.failed(index, sentAt, answer.kind)
    return now + pause.afterFailure(now)
  }
}
