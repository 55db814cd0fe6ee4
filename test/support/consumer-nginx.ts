import type { Layout } from '../../src/outputs/output.ts'
import type { Consumer, Place } from './consumer-rig.ts'
import { startNginx } from './nginx.ts'

/** What nginx reads in each layout; `combined` is one file for certificate and key. */
export type NginxLayout = Layout | 'combined'

/** A real nginx of two workers, with its own config test before files become visible. */
export const nginxConsumer = (layout: NginxLayout, more: Partial<Consumer> = {}): Consumer => ({
  name: `nginx, ${layout}`,
  config: { text: (place) => configFor(layout, place) },
  start: async (place) => {
    const nginx = await startNginx({ port: place.port, pidFile: place.path('nginx.pid'), ...served(layout, place) })
    return { pid: nginx.pid, log: () => nginx.errorLog(), [Symbol.asyncDispose]: () => nginx[Symbol.asyncDispose]() }
  },
  ...more,
})

function served(layout: NginxLayout, { folder }: Place) {
  const main = 'worker_shutdown_timeout 5s;'
  if (layout === 'nginx-include') return { main, server: `include ${folder}/tls/tls.conf;` }
  if (layout === 'combined') return { main, certificate: `${folder}/tls/tls.pem`, key: `${folder}/tls/tls.pem` }
  return { main, certificate: `${folder}/tls/tls.crt`, key: `${folder}/tls/tls.key` }
}

function configFor(layout: NginxLayout, { folder, port }: Place): string {
  const directory = `${folder}/tls`
  return JSON.stringify({
    admin: { socket: `${folder}/control.sock` },
    certificates: [
      {
        name: 'web',
        source: { kind: 'dev-ca', directory: `${folder}/ca`, commonName: 'web.example.com' },
        outputs: [layout === 'combined' ? { kind: 'combined', directory } : { kind: 'pem', directory, layout }],
        reload: [{ kind: 'signal', pidFile: `${folder}/nginx.pid`, process: 'nginx' }],
        verify: [{ kind: 'tls', address: `127.0.0.1:${port}`, workers: 2 }],
      },
    ],
  })
}
