import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import type { ErrorCode } from '../../src/errors.ts'
import { context, failure, make, never, temporaryFolder } from '../reloaders/support.ts'
import { createTestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { haproxyConsumer } from '../support/consumer-haproxy.ts'
import { assertConsumer } from '../support/consumer-rig.ts'
import { type Haproxy, startHaproxy } from '../support/haproxy.ts'
import { freePort } from '../support/nginx.ts'
import { served } from '../support/served.ts'
import { until } from '../support/until.ts'

const skip = await skipReason('haproxy')

test('HAProxy takes three certificates by its runtime API while clients connect: no handshake fails', { skip }, (t) =>
  assertConsumer(t, haproxyConsumer('runtime'), { rotations: 3 }),
)

describe('the reloader haproxy', { skip }, async () => {
  if (skip) return
  const place = await makePlace()
  after(() => place[Symbol.asyncDispose]())
  const { haproxy, file, other, port } = place
  const reload = (options: object = {}) => {
    const { socket } = place
    return make({ kind: 'haproxy', socket, file, ...options }).reload(context, never)
  }
  const refuses = (code: ErrorCode, says: RegExp, options: object = {}) =>
    assert.rejects(reload(options), failure(code, says))
  const isFree = async () => assert.match(await haproxy.ask(`abort ssl cert ${file}`), /No ongoing transaction/)

  test('puts what is on disk into the running process, blank lines or not, and starts no worker', async () => {
    const before = await haproxy.ask('show info')
    const { pem, serial } = await place.issue()
    await writeFile(file, `\n${pem.replaceAll('-----BEGIN CERTIFICATE', '\r\n\n-----BEGIN CERTIFICATE')}\n\n`)
    await reload()
    assert.equal(await served(port), serial)
    const pidIn = (answer: string) => /^Pid: (\d+)$/m.exec(answer)?.[1]
    assert.equal(pidIn(await haproxy.ask('show info')), pidIn(before))
    await isFree()
  })

  test('tells what HAProxy says of a key of something else, and leaves no transaction open', async () => {
    const before = await served(port)
    const [one, two] = [await place.issue(), await place.issue()]
    await writeFile(file, one.key + two.certificate)
    await refuses('RELOAD_FAILED', /does not take .*inconsistencies between private key and certificate/)
    assert.equal(await served(port), before)
    await isFree()
  })

  test('finishes over a transaction that somebody left open, of the same file', async () => {
    const { pem, serial } = await place.issue()
    const left = await place.issue()
    assert.match(await haproxy.ask(`set ssl cert ${file} <<\n${left.pem}`), /Transaction created/)
    await writeFile(file, pem)
    await reload()
    assert.equal(await served(port), serial)
  })

  test('waits while another file is in a transaction, and says so when that does not end', async () => {
    const { pem, serial } = await place.issue()
    await writeFile(file, pem)
    const open = async () => haproxy.ask(`set ssl cert ${other} <<\n${await readFile(other, 'utf8')}`)
    assert.match(await open(), /Transaction created/)
    await refuses('RELOAD_FAILED', /ongoing transaction is about/)
    const told = reload()
    await haproxy.ask(`abort ssl cert ${other}`)
    await told
    assert.equal(await served(port), serial)
  })

  test('says that HAProxy does not know a file, and where it would have to be named', async () => {
    const says = /does not know \/nowhere\/tls\.pem: .*not referenced by the configuration.*crt-list/
    await refuses('RELOAD_FAILED', says, { name: '/nowhere/tls.pem' })
    await assert.rejects(
      make({ kind: 'haproxy', socket: place.socket, file: '/nowhere/tls.pem' }).inspect(),
      failure('RELOAD_FAILED', /does not know \/nowhere\/tls\.pem/),
    )
    await isFree()
  })

  test('a file that is too long for its buffer is a refusal that names the setting', async () => {
    const { key, certificate } = await place.issue()
    await writeFile(file, key + certificate.repeat(40))
    await refuses('RELOAD_FAILED', /tune\.bufsize/)
    await writeFile(file, key + certificate)
  })

  test('a HAProxy that is not there is no refusal, nor is a file that is none', async () => {
    await refuses('RELOAD_TARGET_MISSING', /the file for HAProxy, .*\/none\.pem, cannot be read: ENOENT/, {
      file: file.replace('tls.pem', 'none.pem'),
    })
    await refuses('RELOAD_TARGET_MISSING', /does not answer "abort ssl cert .*": ENOENT/, { socket: '/nowhere/sock' })
    const nobody = `127.0.0.1:${await freePort()}`
    await refuses('RELOAD_TARGET_MISSING', /ECONNREFUSED/, { socket: nobody })
  })

  test('a reload by the master reads the file, and is over when it says so', async () => {
    const { pem, serial } = await place.issue()
    await writeFile(file, pem)
    await reload({ via: 'master', socket: place.master, file: undefined })
    await until('the new worker serves alone', async () => (await served(port)) === serial)
    await reload({ via: 'master', socket: place.master, file: undefined })
    await until('so it does after another one', async () => (await served(port)) === serial)
  })

  test('a look says whom it would tell, and tells nobody', async () => {
    const before = await haproxy.ask('show info')
    const [byRuntime, byMaster] = [
      { socket: place.socket, file },
      { socket: place.master, via: 'master' },
    ]
    assert.match(await make({ kind: 'haproxy', ...byRuntime }).inspect(), /commit of .*\/tls\.pem: it knows this file$/)
    assert.match(await make({ kind: 'haproxy', ...byMaster }).inspect(), /reload by its master: it answers$/)
    assert.equal(/^Pid: .*$/m.exec(await haproxy.ask('show info'))?.[0], /^Pid: .*$/m.exec(before)?.[0])
  })

  test('a configuration that the master cannot load is a refused reload, the old worker goes on', async () => {
    const before = await served(port)
    const config = await readFile(haproxy.configFile, 'utf8')
    await writeFile(haproxy.configFile, `${config}\nbogus on\n`)
    const options = { via: 'master', socket: place.master, file: undefined }
    await refuses('RELOAD_FAILED', /did not load its configuration/, options)
    assert.equal(await served(port), before)
    await writeFile(haproxy.configFile, config)
    await reload(options)
  })
})

interface Issued {
  readonly key: string
  readonly certificate: string
  readonly pem: string
  readonly serial: string
}

/** A HAProxy with two files, its stats socket and the socket of its master. */
async function makePlace() {
  const folder = await temporaryFolder()
  const ca = await createTestCa()
  const issue = async (commonName = 'web.example.com'): Promise<Issued> => {
    const { keyPem: key, certificatePem: certificate, bundle } = await ca.issue({ commonName })
    return { key, certificate, pem: key + certificate, serial: bundle.serial.toUpperCase() }
  }
  const [file, other] = [join(folder.path, 'tls.pem'), join(folder.path, 'other.pem')]
  await writeFile(file, (await issue()).pem)
  await writeFile(other, (await issue('other.example.com')).pem)
  const options = {
    port: await freePort(),
    certificate: file,
    bind: `crt ${other}`,
    pidFile: join(folder.path, 'pid'),
    socket: join(folder.path, 'stats.sock'),
    master: join(folder.path, 'master.sock'),
  }
  const haproxy: Haproxy = await startHaproxy(options)
  const dispose = async () => {
    await haproxy[Symbol.asyncDispose]()
    await folder[Symbol.asyncDispose]()
  }
  return { ...options, haproxy, file, other, issue, [Symbol.asyncDispose]: dispose }
}
