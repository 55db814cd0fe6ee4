import assert from 'node:assert/strict'
import { once } from 'node:events'
import { appendFile, chmod, chown, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { connect } from 'node:tls'
import { systemClock } from '../../src/clock.ts'
import { fingerprintOf } from '../../src/core/bundle.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { coalesce } from '../../src/reloaders/coalesce.ts'
import { reloaders } from '../../src/reloaders/index.ts'
import type { ReloadContext } from '../../src/reloaders/reloader.ts'
import { handshake } from '../../src/verifiers/handshake.ts'
import { verifiers } from '../../src/verifiers/index.ts'
import { deps } from '../reloaders/support.ts'
import { createTestCa, type Issued } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { type Nginx, startNginx } from '../support/nginx.ts'

const skip = await skipReason('nginx')
const never = new AbortController().signal
const context: ReloadContext = {
  certificates: ['web'],
  serial: '',
  fingerprint: '',
  notAfter: 0,
  lifetimeMs: 0,
  isFirst: false,
  directories: [],
}

const ca = await createTestCa()
const issue = (commonName = 'web.test') => ca.issue({ commonName, withIntermediate: true })

const root = await mkdtemp(join(tmpdir(), 'certferry-test-'))
after(() => rm(root, { recursive: true, force: true }))
let sets = 0

/** Files of one certificate; `put` replaces them by rename, one after the other. */
async function createFiles(first: Issued) {
  sets += 1
  const certificate = join(root, `${sets}.crt`)
  const key = join(root, `${sets}.key`)
  const place = async (path: string, content: string) => {
    await writeFile(`${path}.new`, content, { mode: 0o600 })
    await rename(`${path}.new`, path)
  }
  const put = async ({ certificatePem, chainPems, keyPem }: Issued) => {
    await place(certificate, certificatePem + chainPems.slice(0, -1).join(''))
    await place(key, keyPem)
  }
  await put(first)
  return { certificate, key, put, place }
}

const reloader = (options: Record<string, unknown>) =>
  reloaders.create(reloaders.schema.parse(options), { ...deps, clock: systemClock, env: process.env })
const hangup = ({ pidFile }: Pick<Nginx, 'pidFile'>) => reloader({ kind: 'signal', pidFile, process: 'nginx' })
const verifier = (port: number, options: object = {}) =>
  verifiers.create(
    verifiers.schema.parse({ kind: 'tls', address: `127.0.0.1:${port}`, serverName: 'web.test', ...options }),
    { clock: systemClock },
  )

const failure = (code: ErrorCode, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SidecarError, String(error))
  assert.equal(error.code, code, error.message)
  assert.match(error.message, message)
  return true
}

async function served(port: number): Promise<string | undefined> {
  const endpoint = { host: '127.0.0.1', port, serverName: 'web.test', timeoutMs: 5_000 }
  const look = await handshake(endpoint, never)
  return look.up ? fingerprintOf(look.chain[0]) : undefined
}

test('R10 a reload is proven only once nginx shows the old certificate no more', { skip }, async (t) => {
  let current = await issue()
  const files = await createFiles(current)
  await using nginx = await startNginx({ ...files, workers: 2 })
  for (let round = 1; round <= 5; round += 1) {
    const next = await issue()
    await files.put(next)
    const tight = hammer(nginx.port, current.bundle.fingerprint)
    await hangup(nginx).reload(context, never)
    const told = performance.now()
    await verifier(nginx.port, { workers: 2 }).verify(next.bundle, current.bundle.fingerprint, never)
    const proven = performance.now()
    const { lastOldAt, oldAfterNew, failed, total } = await tight.stop()
    t.diagnostic(
      `round ${round}: old certificate seen until ${(lastOldAt - told).toFixed(0)} ms after the signal, ${oldAfterNew} old answers after the first new one, proven after ${(proven - told).toFixed(0)} ms, ${total} handshakes, ${failed} failed`,
    )
    assert.equal(failed, 0)
    assert.ok(lastOldAt < proven, 'no old answer after the proof')
    assert.equal(await served(nginx.port), next.bundle.fingerprint)
    current = next
  }
})

/** Four clients that connect without pause, and go on for a while after `stop`. */
function hammer(port: number, old: string) {
  let isStopped = false
  const seen = { lastOldAt: 0, oldAfterNew: 0, failed: 0, total: 0, hasNew: false }
  const client = async () => {
    while (!isStopped) {
      const fingerprint = await served(port)
      seen.total += 1
      if (fingerprint === undefined) seen.failed += 1
      else if (fingerprint !== old) seen.hasNew = true
      else {
        seen.lastOldAt = performance.now()
        if (seen.hasNew) seen.oldAfterNew += 1
      }
    }
  }
  const clients = Promise.all([client(), client(), client(), client()])
  return {
    stop: async () => {
      await systemClock.sleep(200)
      isStopped = true
      await clients
      return seen
    },
  }
}

test('R9 a signal that nginx took but could not obey is found out by the probe', { skip }, async () => {
  const [first, second] = await Promise.all([issue(), issue()])
  const files = await createFiles(first)
  await using nginx = await startNginx(files)
  await files.place(files.key, second.keyPem)
  await hangup(nginx).reload(context, never)
  await assert.rejects(
    verifier(nginx.port, { deadline: '400ms' }).verify(second.bundle, first.bundle.fingerprint, never),
    failure('RELOAD_NOT_EFFECTIVE', new RegExp(`still serves certificate ${first.bundle.serial} 400ms after`)),
  )
  assert.match(await nginx.errorLog(), /\[emerg\].*key values mismatch/)
  const command = reloader({ kind: 'exec', command: [...nginx.command, '-s', 'reload'] })
  await assert.rejects(
    command.reload(context, never),
    failure('RELOAD_FAILED', /exited with code 1; it printed: .*key values mismatch/),
  )
  await files.put(second)
  await command.reload(context, never)
  await verifier(nginx.port).verify(second.bundle, first.bundle.fingerprint, never)
})

test("R8 a directive that breaks nginx's config is told before anything is reloaded", { skip }, async () => {
  const first = await issue()
  const files = await createFiles(first)
  await using nginx = await startNginx(files)
  const tested = reloader({ kind: 'signal', pidFile: nginx.pidFile, test: [...nginx.command, '-t'] })
  await tested.test(context, never)
  await appendFile(nginx.configFile, 'bogus_directive on;\n')
  await assert.rejects(
    tested.test(context, never),
    failure('TARGET_CONFIG_BROKEN', /-t" exited with code 1: .*\[emerg\].* unknown directive "bogus_directive"/),
  )
})

const isRoot = process.getuid?.() === 0
const NOBODY = { uid: 65_534, gid: 65_534 }

test("R12 a key that nginx's user may not read: nginx says so, and keeps the old one", {
  skip: skip || (isRoot ? false : 'takes root to become another user'),
}, async () => {
  const [first, second] = await Promise.all([issue(), issue()])
  const files = await createFiles(first)
  await chmod(root, 0o755)
  await chown(files.key, NOBODY.uid, NOBODY.gid)
  await chown(files.certificate, NOBODY.uid, NOBODY.gid)
  await using nginx = await startNginx({ ...files, user: NOBODY })
  const asNobody = ['setpriv', `--reuid=${NOBODY.uid}`, `--regid=${NOBODY.gid}`, '--clear-groups', ...nginx.command]
  const tested = reloader({ kind: 'signal', pidFile: nginx.pidFile, test: [...asNobody, '-t'] })
  await tested.test(context, never)
  await files.put(second)
  await assert.rejects(
    tested.test(context, never),
    failure('TARGET_CONFIG_BROKEN', /-t" exited with code 1: .*cannot load certificate.*Permission denied/),
  )
  await tested.reload(context, never)
  await assert.rejects(
    verifier(nginx.port, { deadline: '300ms' }).verify(second.bundle, first.bundle.fingerprint, never),
    failure('RELOAD_NOT_EFFECTIVE', /still serves/),
  )
})

test('R1, R13 a target that is down is waited for, and a stale pid file signals nobody', { skip }, async () => {
  const [first, second] = await Promise.all([issue(), issue()])
  const files = await createFiles(first)
  await using crashed = await startNginx(files)
  const { port, pidFile } = crashed
  assert.equal((await verifier(port).probe(never)).up, true)
  await crashed.stop('SIGKILL')
  await files.put(second)
  await assert.rejects(hangup({ pidFile }).reload(context, never), failure('RELOAD_TARGET_MISSING', /nginx\.pid/))
  assert.deepEqual(await verifier(port).probe(never), { up: false, why: 'connection refused' })
  await assert.rejects(
    verifier(port, { deadline: '200ms' }).verify(second.bundle, first.bundle.fingerprint, never),
    failure('TARGET_DOWN', /connection refused$/),
  )
  const verified = verifier(port).verify(second.bundle, undefined, never)
  await using _started = await startNginx({ ...files, port })
  await verified
})

test('R11 a worker that lingers on an old connection does not hold the proof back', { skip }, async () => {
  const [first, second] = await Promise.all([issue(), issue()])
  const files = await createFiles(first)
  await using nginx = await startNginx(files)
  const kept = connect({ host: '127.0.0.1', port: nginx.port, servername: 'web.test', ca: ca.rootPem })
  await once(kept, 'secureConnect')
  kept.write('GET / HTTP/1.1\r\nHost: web.test\r\n')
  await files.put(second)
  await hangup(nginx).reload(context, never)
  await verifier(nginx.port).verify(second.bundle, first.bundle.fingerprint, never)
  kept.write('\r\n')
  const [answer] = await once(kept, 'data')
  assert.match(String(answer), /^HTTP\/1\.1 200 OK/, 'the old worker finishes what it began')
  kept.destroy()
})

test('R15 the certificate of another virtual host is told as a mismatch', { skip }, async () => {
  const [web, other] = await Promise.all([issue(), issue('other.test')])
  const files = await createFiles(web)
  const others = await createFiles(other)
  await using nginx = await startNginx({ ...files, server: 'server_name web.test;' })
  const block = (port: number) =>
    `server { listen 127.0.0.1:${port} ssl; server_name other.test; ssl_certificate ${others.certificate}; ssl_certificate_key ${others.key}; }`
  const config = await readFile(nginx.configFile, 'utf8')
  await writeFile(nginx.configFile, config.replace(/\}\s*$/, `${block(nginx.port)}\n}\n`))
  nginx.reload()
  await verifier(nginx.port, { serverName: 'other.test' }).verify(other.bundle, undefined, never)
  await verifier(nginx.port).verify(web.bundle, undefined, never)
  await assert.rejects(
    verifier(nginx.port, { serverName: 'other.test', deadline: '200ms' }).verify(web.bundle, undefined, never),
    failure('PROBE_MISMATCH', /serves certificate \w+ of "CN=other\.test"/),
  )
})

test('R22 twenty certificates with one nginx signal it once', { skip }, async () => {
  const first = await issue()
  const files = await createFiles(first)
  await using nginx = await startNginx(files)
  const shared = coalesce(hangup(nginx), systemClock)
  await Promise.all(Array.from({ length: 20 }, () => shared.reload(context, never)))
  await verifier(nginx.port).verify(first.bundle, undefined, never)
  const signals = (await nginx.errorLog()).match(/signal 1 \(SIGHUP\) received/g)
  assert.equal(signals?.length, 1)
})
