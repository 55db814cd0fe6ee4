import assert from 'node:assert/strict'
import { createHash, createPrivateKey } from 'node:crypto'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { type Bundle, fingerprintOf, parseCertificates } from '../../src/core/bundle.ts'
import { outputs } from '../../src/outputs/index.ts'
import { type Layout, type Output, writesFiles } from '../../src/outputs/output.ts'

/** In memory where the system has such a place: there a sync costs nothing, as on the volumes of most pods. */
const BASE = fs.existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

/** An empty directory of our own, removed after the test. */
export function makeVolume(t: Pick<TestContext, 'after'>, base = BASE): string {
  const path = fs.mkdtempSync(join(base, 'certferry-test-'))
  t.after(() => fs.rmSync(path, { recursive: true, force: true }))
  return path
}

/** An output of files made from config, as the sidecar makes it. */
export function makeOutput(options: Record<string, unknown>): Output {
  const kubernetes = () => assert.fail('files have nothing to do with Kubernetes')
  const deps = { certificate: 'web', now: Date.now, kubernetes }
  const made = outputs.create(outputs.schema.parse({ kind: 'pem', ...options }), deps)
  return writesFiles(made) ? made : assert.fail('this output writes no files')
}

/**
 * What a careful reader of this layout gets in one go, as the fingerprint of the certificate: `generation` enters the directory behind
 * `..data` once, `nginx-include` reads `tls.conf` once, `flat` opens file after file. Throws when certificate and key do not match.
 */
export function readPair(directory: string, layout: Layout, names?: Names): string {
  const { certificate, key } =
    layout === 'nginx-include' ? includedPaths(directory) : plainPaths(directory, layout, names)
  const text = fs.readFileSync(certificate, 'utf8')
  const [leaf] = parseCertificates(text)
  assert.ok(leaf, `no certificate in ${certificate}`)
  const secret = key === certificate ? text : fs.readFileSync(key, 'utf8')
  assert.ok(leaf.checkPrivateKey(createPrivateKey(secret)), `${certificate} and ${key} do not match`)
  return fingerprintOf(leaf)
}

interface Names {
  readonly certificate: string
  readonly key: string
}

function plainPaths(directory: string, layout: Layout, names?: Names): Names {
  const at = layout === 'flat' ? directory : join(directory, fs.readlinkSync(join(directory, '..data')))
  const isCombined = fs.existsSync(join(at, 'tls.pem'))
  const { certificate, key } = names ?? (isCombined ? { certificate: 'tls.pem', key: 'tls.pem' } : PEM_NAMES)
  return { certificate: join(at, certificate), key: join(at, key) }
}

const PEM_NAMES = { certificate: 'tls.crt', key: 'tls.key' }

function includedPaths(directory: string): Names {
  const text = fs.readFileSync(join(directory, 'tls.conf'), 'utf8')
  const path = (directive: string) => {
    const found = new RegExp(`^${directive} "([^"]+)";$`, 'm').exec(text)?.[1]
    assert.ok(found, `no ${directive} in tls.conf: ${text}`)
    return found
  }
  return { certificate: path('ssl_certificate'), key: path('ssl_certificate_key') }
}

/** Every name below `directory` with all that could change about it. */
export function snapshot(directory: string): Record<string, string> {
  const names = fs.readdirSync(directory, { recursive: true }).map(String).sort()
  return Object.fromEntries(['', ...names].map((name) => [name, describe(join(directory, name))]))
}

function describe(path: string): string {
  const stat = fs.lstatSync(path, { bigint: true })
  const content = stat.isSymbolicLink()
    ? fs.readlinkSync(path)
    : stat.isFile()
      ? createHash('sha256').update(fs.readFileSync(path)).digest('hex')
      : ''
  return [stat.ino, stat.mode.toString(8), stat.nlink, stat.uid, stat.gid, stat.mtimeNs, stat.ctimeNs, content].join(
    ' ',
  )
}

/** Asserts that nothing temporary is left, and that nobody but the owner gets at anything. */
export function assertTidy(directory: string): void {
  for (const name of fs.readdirSync(directory, { recursive: true }).map(String)) {
    assert.ok(!name.includes('..tmp-'), `${name} was left behind`)
    const stat = fs.lstatSync(join(directory, name))
    if (!stat.isSymbolicLink()) assert.equal(stat.mode & 0o777, stat.isDirectory() ? 0o700 : 0o600, `mode of ${name}`)
    if (stat.isFile()) assert.equal(stat.nlink, 1, `links of ${name}`)
  }
}

export const generationsIn = (directory: string): string[] =>
  fs
    .readdirSync(directory)
    .filter((name) => name.startsWith('..gen-'))
    .sort()

/** Path of the generation in place. */
export const currentIn = (directory: string): string => join(directory, fs.readlinkSync(join(directory, '..data')))

export const serials = (...bundles: readonly (Bundle | undefined)[]): (string | undefined)[] =>
  bundles.map((bundle) => bundle?.serial)
