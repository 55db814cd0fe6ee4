import * as z from 'zod'
import { Duration } from '../core/units.ts'
import { isSegment } from '../core/url-path.ts'

/** Config: where an engine is mounted, such as `pki` or `team/pki`; slashes at the ends are dropped. */
export const MountPath = z
  .string()
  .transform((path) => path.replace(/^\/+|\/+$/g, ''))
  .refine((path) => path.split('/').every(isSegment), { error: 'must be a mount path such as pki or team/pki' })

/** Config: the name of one thing below a mount, such as a role. */
export const PathSegment = z.string().refine(isSegment, { error: 'must be a name without slashes' })

/** Config: a path below a mount; slashes at the ends are dropped. */
export const SecretPath = z
  .string()
  .transform((path) => path.replace(/^\/+|\/+$/g, ''))
  .refine((path) => path.split('/').every(isSegment), { error: 'must be a path such as team/api' })

/** Config: which connection to ask. */
export const vaultName = z
  .string()
  .min(1)
  .optional()
  .describe('Name of the connection in vaults; the one of vault unless given')

/** Config: how often somebody else's doing is looked at. */
export const poll = Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
  .prefault('5m')
  .describe('How often it is looked at, up to a tenth sooner by chance; one request each')

/** So that many who started together do not ask together: up to a tenth sooner. */
export const jittered = (ms: number, random: () => number): number => ms * (1 - random() / 10)
