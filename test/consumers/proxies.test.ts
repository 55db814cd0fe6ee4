import { describe, test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { haproxyConsumer } from '../support/consumer-haproxy.ts'
import { nginxConsumer, upgradedNginx } from '../support/consumer-nginx.ts'
import { assertConsumer, type Consumer, startServer } from '../support/consumer-rig.ts'

const twenty = (consumer: Consumer) => assertConsumer(consumer, { rotations: 20 })

describe('twenty rotations while clients connect, none fails and none sees a mixed pair', async () => {
  const skip = {
    nginx: await skipReason('nginx'),
    haproxy: await skipReason('haproxy'),
    envoy: await skipReason('envoy'),
    traefik: await skipReason('traefik'),
    apache: await skipReason('apache2'),
    caddy: await skipReason('caddy', 'systemd-socket-activate'),
  }

  for (const layout of ['nginx-include', 'generation', 'flat', 'combined'] as const)
    test(`nginx, ${layout}`, { skip: skip.nginx }, () => twenty(nginxConsumer(layout)))

  test('nginx, upgraded to another binary meanwhile', { skip: skip.nginx }, () =>
    twenty(upgradedNginx('nginx-include')),
  )

  for (const via of ['runtime', 'master'] as const)
    test(`HAProxy, ${via}`, { skip: skip.haproxy }, () => twenty(haproxyConsumer(via)))

  test('Envoy, by file SDS', { skip: skip.envoy }, async () =>
    twenty({
      name: 'Envoy',
      config: 'envoy/certferry.yaml',
      start: async (place) => {
        await place.fill('envoy/sds.yaml')
        const options = ['--concurrency', '2', '--disable-hot-restart', '-l', 'warning']
        return startServer({ argv: [await component('envoy'), '-c', await place.fill('envoy/envoy.yaml'), ...options] })
      },
    }),
  )

  test('Traefik', { skip: skip.traefik }, async () =>
    twenty({
      name: 'Traefik',
      config: 'traefik/certferry.yaml',
      start: async (place) => {
        await place.fill('traefik/dynamic.yaml')
        const config = await place.fill('traefik/traefik.yaml')
        return startServer({ argv: [await component('traefik'), `--configFile=${config}`] })
      },
    }),
  )

  test('Apache httpd', { skip: skip.apache }, async () =>
    twenty({
      name: 'Apache httpd',
      config: 'apache/certferry.yaml',
      variables: { APACHE: await component('apache2') },
      start: async (place) => {
        const argv = [await component('apache2'), '-f', await place.fill('apache/httpd.conf'), '-DFOREGROUND']
        return startServer({ argv, env: place.variables })
      },
    }),
  )

  test('Caddy', { skip: skip.caddy }, async () =>
    twenty({
      name: 'Caddy',
      config: 'caddy/certferry.yaml',
      start: async (place) => {
        const config = await place.fill('caddy/Caddyfile')
        const caddy = [await component('caddy'), 'run', '--adapter', 'caddyfile', '--config', config]
        const activate = [
          await component('systemd-socket-activate'),
          '-l',
          `127.0.0.1:${place.port}`,
          '-E',
          'HOME',
          '--',
        ]
        return startServer({ argv: [...activate, ...caddy], env: { HOME: place.folder } })
      },
    }),
  )
})
