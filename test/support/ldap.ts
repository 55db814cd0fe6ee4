import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import * as z from 'zod'
import { keepNoOrphan, logOf } from './child.ts'
import { component } from './components.ts'
import { until } from './until.ts'
import { freePort } from './vault.ts'

/** A directory of people, `uid=NAME,ou=people,dc=example,dc=com`. */
export interface LdapServer extends AsyncDisposable {
  readonly address: string
  /** What Vault is told of it: POST auth/ldap/config. */
  readonly config: Readonly<Record<string, unknown>>
  /** Who may change the directory, and where people are in it. */
  readonly admin: { readonly dn: string; readonly password: string }
  readonly people: string
  /** Whether this person may log in now, by a real bind. Throws when the server does not answer, or something else. */
  canLogIn(uid: string, password: string): Promise<boolean>
}

/** A real slapd on a free loopback port, which knows these people by their passwords. Ready when this resolves. `settings` are lines of its config. */
export async function startLdap(
  people: Readonly<Record<string, string>>,
  settings: readonly string[] = [],
): Promise<LdapServer> {
  const program = await component('slapd')
  const folder = await mkdtemp(join(tmpdir(), 'certferry-ldap-'))
  const address = `ldap://127.0.0.1:${await freePort()}`
  const configFile = join(folder, 'slapd.conf')
  const entriesFile = join(folder, 'entries.ldif')
  await mkdir(join(folder, 'data'))
  await writeFile(configFile, configOf(folder, settings), { mode: 0o600 })
  await writeFile(entriesFile, entriesOf(people), { mode: 0o600 })
  // slapd itself, by another name, fills a directory that is not served yet.
  await promisify(execFile)(program, ['-T', 'add', '-f', configFile, '-l', entriesFile])
  const child = spawn(program, ['-d', '0', '-h', address, '-f', configFile], { stdio: ['ignore', 'pipe', 'pipe'] })
  const log = logOf(child)
  const kill = keepNoOrphan(child)
  const dispose = async () => {
    await kill()
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await until('slapd answers', () => {
      if (child.exitCode !== null) throw new Error(`it ended: ${log()}`)
      return isAnswered(address)
    })
  } catch (error) {
    await dispose()
    throw error
  }
  return {
    address,
    config: { url: address, userdn: PEOPLE, userattr: 'uid', groupdn: PEOPLE },
    admin: ADMIN,
    people: PEOPLE,
    canLogIn: async (uid, password) => {
      const code = await bind(address, `uid=${uid},${PEOPLE}`, password)
      if (code === SUCCESS || code === INVALID_CREDENTIALS) return code === SUCCESS
      throw new Error(`slapd answers ${code}`)
    },
    [Symbol.asyncDispose]: dispose,
  }
}

const BASE = 'dc=example,dc=com'
const PEOPLE = `ou=people,${BASE}`
const ADMIN = { dn: `cn=admin,${BASE}`, password: 'admin' }
const SCHEMAS = ['core', 'cosine', 'inetorgperson']

const configOf = (folder: string, settings: readonly string[]) =>
  [
    ...SCHEMAS.map((name) => `include /etc/ldap/schema/${name}.schema`),
    ...settings,
    'database ldif',
    `suffix "${BASE}"`,
    `rootdn "${ADMIN.dn}"`,
    `rootpw ${ADMIN.password}`,
    `directory "${join(folder, 'data')}"`,
    '',
  ].join('\n')

function entriesOf(people: Readonly<Record<string, string>>): string {
  const persons = Object.entries(people).map(([uid, password]) => [
    `dn: uid=${uid},${PEOPLE}`,
    'objectClass: inetOrgPerson',
    ...['uid', 'cn', 'sn'].map((name) => `${name}: ${uid}`),
    `userPassword:: ${Buffer.from(password).toString('base64')}`,
  ])
  const organization = [
    `dn: ${BASE}`,
    'objectClass: dcObject',
    'objectClass: organization',
    'dc: example',
    'o: Example',
  ]
  const unit = [`dn: ${PEOPLE}`, 'objectClass: organizationalUnit', 'ou: people']
  return [organization, unit, ...persons].map((lines) => `${lines.join('\n')}\n`).join('\n')
}

const SUCCESS = 0
const INVALID_CREDENTIALS = 49

/** The result code of a simple bind (RFC 4511, section 4.2). */
async function bind(address: string, dn: string, password: string): Promise<number> {
  const request = [der(0x02, [3]), der(0x04, Buffer.from(dn)), der(0x80, Buffer.from(password))]
  const message = der(0x30, Buffer.concat([der(0x02, [1]), der(0x60, Buffer.concat(request))]))
  const { hostname, port } = new URL(address)
  const socket = connect(Number(port), hostname)
  try {
    socket.write(message)
    const [reply] = z.tuple([z.instanceof(Buffer)]).parse(await once(socket, 'data'))
    // Of a short answer: SEQUENCE, id 1, BindResponse, and the result code first.
    const [start, code] = [reply.subarray(2, 9).toString('hex'), reply[9]]
    if (!/^02010161..0a01$/.test(start) || code === undefined)
      throw new Error(`no bind response: ${reply.toString('hex')}`)
    return code
  } finally {
    socket.destroy()
  }
}

/** At most 255 bytes of content. */
const der = (tag: number, content: Uint8Array | readonly number[]) =>
  Buffer.from([tag, 0x81, content.length, ...content])

function isAnswered(address: string): Promise<boolean> {
  const { hostname, port } = new URL(address)
  const socket = connect(Number(port), hostname)
  return new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  }).finally(() => socket.destroy())
}
