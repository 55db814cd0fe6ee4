import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, type TestContext, test } from 'node:test'
import { createTestCa } from '../support/ca.ts'
import { component, skipReason } from '../support/components.ts'
import { haproxyConsumer } from '../support/consumer-haproxy.ts'
import { nginxConsumer, upgradedNginx } from '../support/consumer-nginx.ts'
import { assertConsumer, type Consumer, exampleFile, runConsumer, startServer } from '../support/consumer-rig.ts'
import { until } from '../support/until.ts'

const twenty = (t: TestContext, consumer: Consumer) => assertConsumer(t, consumer, { rotations: 20 })

const skip = {
  nginx: await skipReason('nginx'),
  haproxy: await skipReason('haproxy'),
  envoy: await skipReason('envoy'),
  traefik: await skipReason('traefik'),
  apache: await skipReason('apache2'),
  caddy: await skipReason('caddy', 'systemd-socket-activate'),
}

describe('twenty rotations while clients connect, none fails and none sees a mixed pair', () => {
  for (const layout of ['nginx-include', 'generation', 'flat', 'combined'] as const)
    test(`nginx, ${layout}`, { skip: skip.nginx }, (t) => twenty(t, nginxConsumer(layout)))

  test('nginx, upgraded to another binary meanwhile', { skip: skip.nginx }, (t) =>
    twenty(t, upgradedNginx('nginx-include')),
  )

  for (const via of ['runtime', 'master'] as const)
    test(`HAProxy, ${via}`, { skip: skip.haproxy }, (t) => twenty(t, haproxyConsumer(via)))

  test('Envoy, by file SDS', { skip: skip.envoy }, (t) => twenty(t, envoy()))

  test('Traefik', { skip: skip.traefik }, (t) => twenty(t, traefik()))

  test('Apache httpd', { skip: skip.apache }, async (t) => twenty(t, await apache()))

  test('Caddy', { skip: skip.caddy }, (t) => twenty(t, caddy()))
})

describe('what the documentation warns of is so', () => {
  test('Traefik that is not told does not notice', { skip: skip.traefik }, () =>
    notTold({ ...traefik(), config: { text: async () => withoutReload(await exampleFile('traefik/certferry.yaml')) } }),
  )

  test('a graceful restart that meets half a pair ends Apache, which its own test does not see', {
    skip: skip.apache,
  }, async () => {
    const consumer = await apache()
    const other = await (await createTestCa()).issue()
    const run = runConsumer(
      {
        ...consumer,
        between: async (_done, place, { pid = 0 }) => {
          const config = place.path('httpd.conf')
          const text = await readFile(config, 'utf8')
          const key = await place.write('other.key', other.keyPem)
          await writeFile(config, text.replace(`${place.folder}/certs/tls.key`, key))
          const argv = [await component('apache2'), '-t', '-f', config]
          await using tested = startServer({ argv, env: place.variables })
          await until('the test is content', async () => /Syntax OK/.test(await tested.log()))
          process.kill(pid, 'SIGUSR1')
          await until('Apache has ended', async () => !existsSync(`/proc/${pid}`))
          assert.match(await readFile(place.path('error.log'), 'utf8'), /AH02565: .*do not match/)
        },
      },
      { rotations: 1 },
    )
    assert.ok((await run).failed > 0)
  })
})

/** The certificate gets no further than the disk, and certferry says so and goes back. */
async function notTold(consumer: Consumer) {
  const { served, failed, complaints } = await runConsumer(consumer, { rotations: 1 })
  assert.deepEqual([served, failed], [0, 0])
  assert.match(complaints.join('\n'), /still serves certificate .* wanted/)
}

const withoutReload = (text: string) => text.replace(/^ *reload:.*$/m, '')

function envoy(): Consumer {
  return {
    name: 'Envoy',
    config: 'envoy/certferry.yaml',
    start: async (place) => {
      await place.fill('envoy/sds.yaml')
      const options = ['--concurrency', '2', '--disable-hot-restart', '-l', 'warning']
      return startServer({ argv: [await component('envoy'), '-c', await place.fill('envoy/envoy.yaml'), ...options] })
    },
  }
}

function traefik(): Consumer {
  return {
    name: 'Traefik',
    config: 'traefik/certferry.yaml',
    start: async (place) => {
      await place.fill('traefik/dynamic.yaml')
      const config = await place.fill('traefik/traefik.yaml')
      return startServer({ argv: [await component('traefik'), `--configFile=${config}`] })
    },
  }
}

async function apache(): Promise<Consumer> {
  return {
    name: 'Apache httpd',
    config: 'apache/certferry.yaml',
    variables: { APACHE: await component('apache2') },
    start: async (place) => {
      const argv = [await component('apache2'), '-f', await place.fill('apache/httpd.conf'), '-DFOREGROUND']
      return startServer({ argv, env: place.variables })
    },
  }
}

function caddy(): Consumer {
  return {
    name: 'Caddy',
    config: 'caddy/certferry.yaml',
    start: async (place) => {
      const config = await place.fill('caddy/Caddyfile')
      const argv = [await component('caddy'), 'run', '--adapter', 'caddyfile', '--config', config]
      const activate = [await component('systemd-socket-activate'), '-l', `127.0.0.1:${place.port}`, '-E', 'HOME', '--']
      return startServer({ argv: [...activate, ...argv], env: { HOME: place.folder } })
    },
  }
}
