import { setTimeout as sleep } from 'node:timers/promises'

/**
 * Asks again and again until the answer is neither undefined nor false, and gives it. What `ask` throws counts as "not yet"; once the
 * time is up it is told together with the claim that did not come true.
 */
export async function until<T>(
  claim: string,
  ask: () => T | Promise<T>,
  { timeoutMs = 30_000, everyMs = 20 } = {},
): Promise<Exclude<T, undefined | false>> {
  const deadline = Date.now() + timeoutMs
  for (let trouble: unknown; ; ) {
    try {
      const answer = await ask()
      if (isGiven(answer)) return answer
      trouble = undefined
    } catch (error) {
      trouble = error
    }
    if (Date.now() > deadline) throw new Error(`not within ${timeoutMs / 1000} s: ${claim}`, { cause: trouble })
    await sleep(everyMs)
  }
}

const isGiven = <T>(answer: T): answer is Exclude<T, undefined | false> => answer !== undefined && answer !== false
