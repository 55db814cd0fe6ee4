import * as z from 'zod'
import { quote, type Secret } from '../../core/secret.ts'
import { type Attempt, type AuthDeps, loginFrom } from './auth.ts'
import { fingerprintOf } from './credential.ts'

interface JwtLogin {
  readonly mount: string
  readonly role: string | undefined
  readonly jwt: Secret
  /** Where it comes from, for messages. */
  readonly place: string
  /** What else the method wants to know. */
  readonly facts?: Readonly<Record<string, string>>
}

/**
 * POST auth/{mount}/login with a JWT, as `kubernetes`, `jwt`, `gcp` and `azure` have it. Of a JWT that it refuses Vault often says no more than
 * "permission denied"; so that is told with what the JWT says of itself.
 */
export const jwtLogin = ({ mount, role, jwt, place, facts }: JwtLogin, { ask }: Pick<AuthDeps, 'ask'>): Attempt => ({
  fingerprint: fingerprintOf(jwt.reveal()),
  login: async (signal) => {
    const path = `auth/${mount}/login`
    const body = { role, jwt, ...facts }
    const reply = await ask({ operation: 'login', method: 'POST', path, body }, signal)
    return loginFrom({ ...reply, told: `${reply.told}; ${place} ${claimsOf(jwt)}` })
  },
})

/** RFC 7519 §4.1. */
const Claims = z.object({
  iss: z.string().optional(),
  sub: z.string().optional(),
  aud: z.union([z.string().transform((one) => [one]), z.array(z.string())]).default([]),
  // Up to where Date can tell it.
  exp: z.number().min(0).max(8.64e12).optional(),
})

/** Who, by whom, for whom and how long: none of it is secret, and none of it is proven. */
function claimsOf(jwt: Secret): string {
  const claims = decode(jwt.reveal())
  if (!claims) return 'holds no JWT'
  const { iss, sub, aud, exp } = claims
  const audience = aud.length === 0 ? 'no audience' : `audience ${aud.join(', ')}`
  const until = exp === undefined ? 'without end' : `valid until ${new Date(exp * 1000).toISOString()}`
  return quote(`holds a JWT of ${sub ?? 'nobody'}, issued by ${iss ?? 'nobody'}, for ${audience}, ${until}`, 500)
}

function decode(jwt: string): z.output<typeof Claims> | undefined {
  const [, payload, ...signature] = jwt.split('.')
  if (payload === undefined || signature.length !== 1) return undefined
  try {
    return Claims.safeParse(JSON.parse(Buffer.from(payload, 'base64url').toString())).data
  } catch {
    return undefined
  }
}
