import * as z from 'zod'
import { SidecarError } from '../errors.ts'

const isSegment = (text: string) => text !== '' && text !== '.' && text !== '..' && !/[/\p{Cc}]/u.test(text)

/** Config: where an engine is mounted, such as `pki` or `team/pki`; slashes at the ends are dropped. */
export const MountPath = z
  .string()
  .transform((path) => path.replace(/^\/+|\/+$/g, ''))
  .refine((path) => path.split('/').every(isSegment), { error: 'must be a mount path such as pki or team/pki' })

/** Config: the name of one thing below a mount, such as a role. */
export const PathSegment = z.string().refine(isSegment, { error: 'must be a name without slashes' })

/**
 * Percent-encodes each segment, since a URL folds `pki/../sys/seal` and cuts at `?` and `#`. No encoding helps against `.`, `..` and
 * slashes, which Vault decodes before it looks for the engine, so they throw CONFIG_INVALID.
 */
export function encodePath(segments: readonly string[]): string {
  if (segments.every(isSegment)) return segments.map(encodeURIComponent).join('/')
  throw new SidecarError('CONFIG_INVALID', `${JSON.stringify(segments.join('/'))} is no path in Vault`)
}
