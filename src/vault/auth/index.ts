import * as z from 'zod'
import { registry } from '../../registry.ts'
import { approle } from './approle.ts'
import type { AuthDeps, AuthMethod } from './auth.ts'
import { aws } from './aws.ts'
import { azure } from './azure.ts'
import { cert } from './cert.ts'
import { gcp } from './gcp.ts'
import { inOrder } from './in-order.ts'
import { jwt } from './jwt.ts'
import { kubernetes } from './kubernetes.ts'
import { ldap } from './ldap.ts'
import { token } from './token.ts'
import { userpass } from './userpass.ts'

/** All ways to log in to Vault. */
export const authMethods = registry<AuthDeps, AuthMethod>(
  token,
  approle,
  kubernetes,
  jwt,
  cert,
  userpass,
  ldap,
  aws,
  gcp,
  azure,
)

const Several = z.array(authMethods.schema).min(1, 'needs at least one method')

const Union: z.core.$constructor<z.ZodUnion> = z.ZodUnion

/** A union would say of either no more than that neither fits; but one method and a list of them are not to be mistaken for each other. */
const OneOrSeveral: z.core.$constructor<z.ZodUnion<readonly [typeof authMethods.schema, typeof Several]>> =
  z.core.$constructor('OneOrSeveral', (either, definition) => {
    Union.init(either, definition)
    either._zod.parse = (payload, context) =>
      (Array.isArray(payload.value) ? Several : authMethods.schema)._zod.run(payload, context)
  })

/** Config: how to log in; of a list, the next method is tried when one fails for good. */
export const AuthOptions = new OneOrSeveral({ type: 'union', options: [authMethods.schema, Several] })
export type AuthOptions = z.output<typeof AuthOptions>

export const kindsOf = (options: AuthOptions): string[] => [options].flat().map(({ kind }) => kind)

/** `place` is where the options stand in the config, such as `vault.auth`. */
export function createAuth(options: AuthOptions, deps: AuthDeps): AuthMethod {
  if (!Array.isArray(options)) return authMethods.create(options, deps)
  const methods = options.map((one, index) => {
    const place = `${deps.place}[${index}]`
    return { name: `${place} ${one.kind}`, method: authMethods.create(one, { ...deps, place }) }
  })
  return inOrder(methods, deps)
}
