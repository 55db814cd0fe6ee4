import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { status } from '@grpc/grpc-js'
import { tlsContext } from '../../src/client/index.ts'
import { parseCertificates } from '../../src/core/bundle.ts'
import { bundleCli } from '../../tools/build.ts'
import { createTestCa } from '../support/ca.ts'
import { createProject } from '../support/project.ts'
import { startWorkloadApi, svidOf } from '../support/spiffe-workload-api.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-spiffe-'))
after(() => rmSync(folder, { recursive: true, force: true }))
await bundleCli(join(folder, 'dist'))

const ID = 'spiffe://example.org/web'
const [ca, newCa] = await Promise.all([createTestCa(), createTestCa({ commonName: 'Next Root' })])
const issue = (from = ca) => from.issue({ commonName: 'SPIRE', altNames: [ID], withIntermediate: true })

test('what an agent pushes is served and proven at once, trust included, and what it takes away stays in service', async (t) => {
  await using project = await createProject({ program: join(folder, 'dist/cli.cjs') })
  const first = await issue()
  await using agent = await startWorkloadApi(join(folder, 'agent.sock'), { svids: [svidOf(ID, first, [ca])] })
  const env = { SPIFFE_ENDPOINT_SOCKET: agent.socket }
  const directory = join(project.folder, 'tls')
  const web = {
    name: 'web',
    // Asked so seldom that whatever arrives in this test was pushed.
    source: { kind: 'spiffe', socket: '${SPIFFE_ENDPOINT_SOCKET}', poll: '1h' },
    outputs: [{ kind: 'pem', directory }],
  }
  const configure = (port: number) =>
    project.configure({
      certificates: [{ ...web, verify: [{ kind: 'tls', address: `127.0.0.1:${port}`, serverName: 'web.internal' }] }],
    })
  configure(1)
  await using certferry = project.start({ env })
  const context = await tlsContext({ directory, waitMs: 20_000, ca: false })
  t.after(() => context.close())
  const server = context.attach(createServer(context.serverOptions())).listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const address = server.address()
  configure(typeof address === 'object' && address ? address.port : 0)
  certferry.send('SIGHUP')
  const proven = ({ bundle }: typeof first) =>
    certferry.certificate('web', 'is proven', (one) => one.serial === bundle.serial && one.verified === 'verified')
  await proven(first)

  const second = await issue()
  await until('the agent is listened to', () => agent.listeners() > 0)
  const pushedAt = performance.now()
  agent.give({ svids: [svidOf(ID, second, [ca])] })
  await until('it is served', () => context.current.certificate.raw.equals(second.bundle.leaf.raw))
  t.diagnostic(`served ${Math.round(performance.now() - pushedAt)} ms after the push`)
  await proven(second)

  const roots = () => parseCertificates(readFileSync(join(directory, 'ca.crt'), 'utf8')).length
  assert.equal(roots(), 1)
  agent.give({ svids: [svidOf(ID, second, [ca, newCa])] })
  await until('the new root is trusted beside the old one', () => roots() === 2)
  await proven(second)

  agent.give({ status: status.PERMISSION_DENIED, message: 'no identity issued' })
  await until('it is told', () => certferry.log('rotation.failed').some((line) => line.reason === 'spiffe_denied'))
  assert.ok(context.current.certificate.raw.equals(second.bundle.leaf.raw))

  await agent.stop()
  const third = await issue(newCa)
  agent.give({ svids: [svidOf(ID, third, [newCa])] })
  await agent.start()
  await proven(third)
  assert.equal(roots(), 1)
  const { code, stderr } = await certferry.stop().then(({ code }) => ({ code, stderr: certferry.stderr() }))
  assert.equal(code, 0, stderr)
  assert.equal(agent.listeners(), 0)
})
