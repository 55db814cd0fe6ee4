import * as z from 'zod'
import { isSegment } from '../core/url-path.ts'

/** Config: where an engine is mounted, such as `pki` or `team/pki`; slashes at the ends are dropped. */
export const MountPath = z
  .string()
  .transform((path) => path.replace(/^\/+|\/+$/g, ''))
  .refine((path) => path.split('/').every(isSegment), { error: 'must be a mount path such as pki or team/pki' })

/** Config: the name of one thing below a mount, such as a role. */
export const PathSegment = z.string().refine(isSegment, { error: 'must be a name without slashes' })
