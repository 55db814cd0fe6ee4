import { defineAuth } from './auth.ts'
import { passwordLogin, passwordOptions } from './password-login.ts'

/** POST auth/{mount}/login/{username}: https://developer.hashicorp.com/vault/api-docs/auth/userpass#login */
export const userpass = defineAuth({
  kind: 'userpass',
  summary: 'Logs in as a user that Vault itself knows, with a password.',
  options: passwordOptions('userpass'),
  create: passwordLogin,
})
