import { spawn } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import * as z from 'zod'
import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'

/** Entries of a POSIX ACL for a file of ours: nobody but its owner writes it. */
export const Acl = z
  .array(
    z
      .string()
      .regex(
        /^[ug]:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}:r$/,
        'must be u:USER:r or g:GROUP:r with a name or a number, such as u:990:r; reading is all that is given',
      ),
  )
  .min(1)
  .max(32)
  .describe('Users and groups besides that may read, such as [u:990:r, g:tls:r]; needs setfacl (package acl)')

const PROGRAMS = { setfacl: ['/usr/bin/setfacl', '/bin/setfacl'], getfacl: ['/usr/bin/getfacl', '/bin/getfacl'] }

/** Throws ACL_DENIED where the programs that know ACLs are missing: Node has no call for them. */
export async function assertAclTools(): Promise<void> {
  await Promise.all([locate('setfacl'), locate('getfacl')])
}

/**
 * The ACL of a file, open here, as numbers: `user::rw-`, `user:990:r--` and so on. `given` are entries of the config besides the mode,
 * or a whole ACL as this function gave it before.
 */
export async function setAcl(fd: number, mode: number, given: readonly string[], path: string): Promise<string[]> {
  const bits = (shift: number) =>
    [...'rwx'].map((letter, index) => ((mode >> shift) & (4 >> index) ? letter : '-')).join('')
  const isWhole = given.some((entry) => entry.startsWith('user::'))
  const whole = isWhole ? given : [`u::${bits(6)}`, `g::${bits(3)}`, `o::${bits(0)}`, ...given]
  await run('setfacl', ['--set', whole.join(','), '--', SELF], fd, path)
  return readAcl(fd, path)
}

export async function readAcl(fd: number, path: string): Promise<string[]> {
  // Without `--absolute-names` it says on stderr that it took a slash away.
  const text = await run(
    'getfacl',
    ['--omit-header', '--numeric', '--no-effective', '--absolute-names', '--', SELF],
    fd,
    path,
  )
  return text.split('\n').filter((line) => line !== '')
}

/** The permission bits of a file with this ACL. */
export function modeOf(acl: readonly string[]): number {
  const bits = (tag: string) => {
    const found = acl.find((entry) => entry.startsWith(`${tag}::`))?.slice(tag.length + 2) ?? ''
    return [...'rwx'].reduce((sum, letter, index) => sum | (found.includes(letter) ? 4 >> index : 0), 0)
  }
  return (bits('user') << 6) | (bits('mask') << 3) | bits('other')
}

/** The descriptor that the program inherits: by no path that somebody could swap, and open to it where ours are not. */
const SELF = '/proc/self/fd/3'
const LIMIT_MS = 10_000

async function run(program: keyof typeof PROGRAMS, args: readonly string[], fd: number, path: string): Promise<string> {
  const child = spawn(await locate(program), args, {
    stdio: ['ignore', 'pipe', 'pipe', fd],
    env: { LC_ALL: 'C' },
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  })
  const said = { stdout: '', stderr: '' }
  child.stdout?.setEncoding('utf8').on('data', (text) => {
    said.stdout += text
  })
  child.stderr?.setEncoding('utf8').on('data', (text) => {
    said.stderr += text
  })
  const code = await new Promise<unknown>((resolve) => {
    child.once('error', resolve)
    child.once('close', (status, signal) => resolve(status ?? signal))
  })
  if (code === 0) return said.stdout
  const why = said.stderr.replaceAll(SELF, path).trim().split('\n')[0] || String(code)
  throw new SidecarError(
    'ACL_DENIED',
    `${[program, ...args.slice(0, -2)].join(' ')} of ${path} failed: ${quote(why, 200)}`,
  )
}

async function locate(program: keyof typeof PROGRAMS): Promise<string> {
  for (const path of PROGRAMS[program])
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path
  throw new SidecarError('ACL_DENIED', `acl needs ${program}, and there is no ${PROGRAMS[program].join(' nor ')}`)
}
