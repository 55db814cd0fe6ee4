import { registry } from '../../registry.ts'
import { approle } from './approle.ts'
import type { AuthDeps, AuthMethod } from './auth.ts'
import { cert } from './cert.ts'
import { jwt } from './jwt.ts'
import { kubernetes } from './kubernetes.ts'
import { ldap } from './ldap.ts'
import { token } from './token.ts'
import { userpass } from './userpass.ts'

/** All ways to log in to Vault. */
export const authMethods = registry<AuthDeps, AuthMethod>(token, approle, kubernetes, jwt, cert, userpass, ldap)
