import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createKubernetes } from '../../src/kubernetes/client.ts'
import { KubernetesOptions } from '../../src/kubernetes/options.ts'
import { createTestCa } from '../support/ca.ts'
import { until } from '../support/until.ts'
import { failure, forever } from '../vault/support.ts'
import { createSource } from './contract.ts'

const root = mkdtempSync(join(tmpdir(), 'certferry-kubernetes-secret-'))
after(() => rmSync(root, { recursive: true, force: true }))
const ca = await createTestCa()
const write = (name: string, content: string) => {
  writeFileSync(join(root, name), content)
  return join(root, name)
}
const [caFile, tokenFile] = [write('ca.crt', ca.rootPem), write('token', 'canary')]

/** A stand-in for the API server, with one Secret and those who watch it; test/integration/kubernetes-api.test.ts asks a real one. */
async function begin() {
  const { certificatePem, keyPem } = await ca.issue({ altNames: ['127.0.0.1'] })
  const state = { data: undefined as Record<string, string> | undefined, version: 0, mayWatch: true }
  const watchers = new Set<ServerResponse>()
  const asked: string[] = []
  const secret = () => ({ metadata: { uid: 'u', resourceVersion: String(state.version) }, data: state.data })
  const tell = (type: string) => {
    // In two pieces, as a network may deliver it.
    const line = `${JSON.stringify({ type, object: secret() })}\n`
    for (const watcher of watchers) {
      watcher.write(line.slice(0, 40))
      setImmediate(() => watcher.write(line.slice(40)))
    }
  }
  const server = createServer({ cert: certificatePem, key: keyPem }, ({ url = '' }, response) => {
    asked.push(url)
    const refuse = (code: number, reason: string) =>
      void response.writeHead(code).end(JSON.stringify({ kind: 'Status', message: reason, reason, code }))
    if (!url.includes('watch=true')) {
      if (!state.data) return refuse(404, 'NotFound')
      return void response.end(JSON.stringify(secret()))
    }
    if (!state.mayWatch) return refuse(403, 'Forbidden')
    watchers.add(response.on('close', () => watchers.delete(response)))
    response.flushHeaders()
    if (state.data) response.write(`${JSON.stringify({ type: 'ADDED', object: secret() })}\n`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const place = server.address()
  assert.ok(place && typeof place === 'object')
  const apiServer = `https://127.0.0.1:${place.port}`
  const options = KubernetesOptions.parse({ apiServer, caFile, tokenFile, namespace: 'shop', pod: 'web-0' })
  const api = createKubernetes(options, { env: {} })
  const warnings: string[] = []
  return {
    state,
    asked,
    watchers,
    warnings,
    source: createSource(
      { kind: 'kubernetes-secret', name: 'web-tls' },
      { kubernetes: () => api, warn: (message) => void warnings.push(message) },
    ),
    put: async (more: Record<string, string> = {}) => {
      const { bundle, ...issued } = await ca.issue({ withIntermediate: true })
      const files = { 'tls.crt': issued.certificatePem + issued.chainPems[0], 'tls.key': issued.keyPem, ...more }
      const type = state.data ? 'MODIFIED' : 'ADDED'
      const all = Object.entries({ 'ca.crt': ca.rootPem, ...files })
      state.data = Object.fromEntries(all.map(([name, text]) => [name, Buffer.from(text).toString('base64')]))
      state.version += 1
      tell(type)
      return bundle.serial
    },
    [Symbol.asyncDispose]: async () => {
      await api[Symbol.asyncDispose]()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

describe('source kubernetes-secret', () => {
  it('gives what the Secret holds, and says that nothing is new by its version', async () => {
    await using at = await begin()
    const serial = await at.put()
    const serving = await at.source.fetch(forever)
    assert.equal(serving.serial, serial)
    assert.equal(serving.origin, 'kubernetes-secret shop/web-tls')
    assert.equal(serving.roots.length, 1)
    assert.equal(await at.source.polling?.look(serving, forever), serving)
    const next = await at.put()
    assert.equal((await at.source.polling?.look(serving, forever))?.serial, next)
    assert.deepEqual([...new Set(at.asked)], ['/api/v1/namespaces/shop/secrets/web-tls'])
  })

  it('rings once for each change, also after a watch that ended, and not after its end', async () => {
    await using at = await begin()
    let rung = 0
    const watching = at.source.polling?.watch?.(() => void rung++) ?? assert.fail()
    await until('it watches', () => at.watchers.size === 1)
    assert.match(at.asked[0] ?? '', /secrets\?watch=true&fieldSelector=metadata\.name%3Dweb-tls&timeoutSeconds=240$/)
    await at.put()
    await until('the first is told', () => rung === 1)
    await at.put()
    await until('the second is told', () => rung === 2)
    // A watch that ends is begun anew; what is the same as before is nothing new.
    for (const watcher of at.watchers) watcher.end()
    await until('it watches again', () => at.asked.length === 2 && at.watchers.size === 1)
    await at.put()
    await until('the third is told', () => rung >= 3)
    assert.equal(rung, 3)
    await watching[Symbol.asyncDispose]()
    await until('nobody watches', () => at.watchers.size === 0)
    assert.deepEqual(at.warnings, [])
  })

  it('warns once where it may not watch, with the rule that it takes', async () => {
    await using at = await begin()
    at.state.mayWatch = false
    await using _watching = at.source.polling?.watch?.(() => {}) ?? assert.fail()
    await until('it is told', () => at.warnings.length > 0)
    const rule = /resources: \["secrets"\], verbs: \["watch"\], resourceNames: \["web-tls"\]/
    assert.match(at.warnings[0] ?? '', rule)
    assert.match(at.warnings[0] ?? '', /^cannot watch secrets shop\/web-tls \(403 Forbidden\)/)
    assert.doesNotMatch(at.warnings[0] ?? '', /canary/)
  })

  it('names a Secret that is missing, half there, or holds something else', async () => {
    await using at = await begin()
    assert.equal((await failure(at.source.fetch(forever))).code, 'KUBERNETES_NOT_FOUND')
    await at.put({ 'tls.crt': '' })
    const empty = await failure(at.source.fetch(forever))
    assert.equal(empty.code, 'INPUT_INCOMPLETE')
    assert.equal(empty.message, 'tls.crt of Secret shop/web-tls holds no certificate')
    await at.put({ 'tls.key': (await ca.issue()).keyPem })
    assert.equal((await failure(at.source.fetch(forever))).code, 'INPUT_INCOMPLETE')
    delete at.state.data?.['tls.key']
    at.state.version += 1
    assert.match(
      (await failure(at.source.fetch(forever))).message,
      /^Secret shop\/web-tls lacks tls\.crt or tls\.key; it has ca\.crt, tls\.crt$/,
    )
  })
})
