import { type Bundle, newerOf } from '../core/bundle.ts'
import { jittered } from '../vault/paths.ts'
import type { Polling, Source } from './source.ts'

interface Held {
  readonly origin: string
  /** What is looked at, for people. */
  readonly place: string
  /** Between two looks, ms, up to a tenth sooner by chance. */
  readonly poll: number
  readonly random: () => number
  readonly fetch: Source['fetch']
  /** Where it can learn by itself that there may be something new. */
  readonly watch?: Polling<Bundle>['watch'] | false
  /** How an examination begins to tell of what it found. */
  readonly tell?: (bundle: Bundle) => string
}

/** A source of what somebody else keeps and renews: it wishes for nothing and costs no budget, and a look reads it anew. */
export const heldSource = ({
  origin,
  place,
  poll,
  random,
  fetch,
  watch,
  tell = () => `${place} holds`,
}: Held): Source => ({
  origin,
  issues: false,
  ttlMs: undefined,
  names: undefined,
  algorithm: undefined,
  fetch,
  polling: {
    afterMs: () => jittered(poll, random),
    look: async (serving, signal) => newerOf(serving, await fetch(signal)),
    ...(watch && { watch }),
  },
  examine: async (signal) => {
    const bundle = await fetch(signal)
    const until = new Date(bundle.notAfter).toISOString()
    return [{ ok: true, what: `${tell(bundle)} certificate ${bundle.serial}, valid until ${until}` }]
  },
})
