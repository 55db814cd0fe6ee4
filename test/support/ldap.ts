import { execFile, spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { keepNoOrphan, logOf } from './child.ts'
import { component } from './components.ts'
import { until } from './until.ts'
import { freePort } from './vault.ts'

/** A directory of people, `uid=NAME,ou=people,dc=example,dc=com`. */
export interface LdapServer extends AsyncDisposable {
  readonly address: string
  /** What Vault is told of it: POST auth/ldap/config. */
  readonly config: Readonly<Record<string, unknown>>
}

/** A real slapd on a free loopback port, which knows these people by their passwords. Ready when this resolves. */
export async function startLdap(people: Readonly<Record<string, string>>): Promise<LdapServer> {
  const program = await component('slapd')
  const folder = await mkdtemp(join(tmpdir(), 'certferry-ldap-'))
  const address = `ldap://127.0.0.1:${await freePort()}`
  const configFile = join(folder, 'slapd.conf')
  const entriesFile = join(folder, 'entries.ldif')
  await mkdir(join(folder, 'data'))
  await writeFile(configFile, configOf(folder), { mode: 0o600 })
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
    [Symbol.asyncDispose]: dispose,
  }
}

const BASE = 'dc=example,dc=com'
const PEOPLE = `ou=people,${BASE}`
const SCHEMAS = ['core', 'cosine', 'inetorgperson']

const configOf = (folder: string) =>
  [
    ...SCHEMAS.map((name) => `include /etc/ldap/schema/${name}.schema`),
    'database ldif',
    `suffix "${BASE}"`,
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

function isAnswered(address: string): Promise<boolean> {
  const { hostname, port } = new URL(address)
  const socket = connect(Number(port), hostname)
  return new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  }).finally(() => socket.destroy())
}
