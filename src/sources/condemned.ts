import type { Bundle } from '../core/bundle.ts'
import { SidecarError } from '../errors.ts'
import type { Source } from './source.ts'

/**
 * The same source without what must not be used any more: what others keep may be there long after it was revoked or compromised. Throws
 * STALE_RESPONSE where it has nothing else.
 */
export function withoutCondemned<S extends Source>(source: S, isCondemned: (bundle: Bundle) => boolean): S {
  const { polling } = source
  const welcome = (bundle: Bundle): Bundle => {
    if (!isCondemned(bundle)) return bundle
    const message = `${source.origin} has nothing but certificate ${bundle.serial}, which must not be used any more`
    throw new SidecarError('STALE_RESPONSE', message)
  }
  return {
    ...source,
    fetch: async (signal, current) => welcome(await source.fetch(signal, current)),
    ...(polling && {
      polling: {
        ...polling,
        look: async (serving: Bundle, signal: AbortSignal) => {
          const found = await polling.look(serving, signal)
          return found && found.fingerprint !== serving.fingerprint ? welcome(found) : found
        },
      },
    }),
  }
}
