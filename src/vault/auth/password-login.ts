import * as z from 'zod'
import type { Secret } from '../../core/secret.ts'
import { SidecarError } from '../../errors.ts'
import { MountPath, PathSegment } from '../paths.ts'
import { type AuthDeps, type AuthMethod, loginFrom } from './auth.ts'
import { AbsolutePath, fingerprintOf, PasswordText, readPassword } from './credential.ts'

/** What the methods have in common that know a user by a password. */
export const passwordOptions = (mount: string) =>
  z
    .strictObject({
      mount: MountPath.prefault(mount).describe('Where the auth method is mounted, without auth/'),
      username: PathSegment.describe('Name of the user'),
      password: PasswordText.optional().describe("The password, such as '${PASSWORD}'; either this or passwordFile"),
      passwordFile: AbsolutePath.optional().describe(
        'File that holds it, in one line; read again for each login. Spaces around it are part of it',
      ),
    })
    .refine(({ password, passwordFile }) => (password === undefined) !== (passwordFile === undefined), {
      error: 'needs either password or passwordFile',
    })

interface PasswordLogin {
  readonly mount: string
  readonly username: string
  readonly password?: Secret | undefined
  readonly passwordFile?: string | undefined
}

/** POST auth/{mount}/login/{username} with a password, as `userpass` and `ldap` have it. */
export const passwordLogin = (
  { mount, username, password: given, passwordFile }: PasswordLogin,
  { ask }: Pick<AuthDeps, 'ask'>,
): AuthMethod => ({
  prepare: async () => {
    const password = passwordFile === undefined ? given : readPassword(passwordFile)
    if (!password) throw new SidecarError('AUTH_SOURCE', 'neither password nor passwordFile is given')
    return {
      fingerprint: fingerprintOf(password.reveal()),
      login: async (signal) => {
        const path = `auth/${mount}/login/${username}`
        return loginFrom(await ask({ operation: 'login', method: 'POST', path, body: { password } }, signal))
      },
    }
  },
})
