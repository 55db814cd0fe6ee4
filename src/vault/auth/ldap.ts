import { defineAuth } from './auth.ts'
import { passwordLogin, passwordOptions } from './password-login.ts'

/** POST auth/{mount}/login/{username}: https://developer.hashicorp.com/vault/api-docs/auth/ldap#login-with-ldap-user */
export const ldap = defineAuth({
  kind: 'ldap',
  summary: 'Logs in as a user of the directory that Vault asks, with a password.',
  options: passwordOptions('ldap'),
  create: passwordLogin,
})
