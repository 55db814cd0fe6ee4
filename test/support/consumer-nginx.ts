import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Layout } from '../../src/outputs/output.ts'
import { component } from './components.ts'
import { type Consumer, exampleFile, type Place, type Server, startServer } from './consumer-rig.ts'
import { until } from './until.ts'

/** What nginx reads in each layout; `combined` is one file for certificate and key. */
export type NginxLayout = Layout | 'combined'

/** The nginx of the example, with what it says of certificate and key for each layout, and its own test before files become visible. */
export const nginxConsumer = (layout: NginxLayout, more: Partial<Consumer> = {}): Consumer => ({
  name: `nginx, ${layout}`,
  config: { text: (place) => configFor(layout, place) },
  prepare: async (place) => {
    const text = await exampleFile('nginx/nginx.conf')
    const changed = text
      .replace('127.0.0.1:8443', `127.0.0.1:${place.port}`)
      .replace(/^ *include certs\/tls\.conf;.*$/m, directives(layout))
    await place.write('nginx.conf', changed)
  },
  start: async (place) => {
    const server = startServer({ argv: [...(await command(place)), '-e', 'error.log'] })
    return { ...server, log: () => readFile(place.path('error.log'), 'utf8').catch(() => server.log()) }
  },
  ...more,
})

const command = async ({ folder }: Place) => [await component('nginx'), '-p', folder, '-c', 'nginx.conf']

function directives(layout: NginxLayout): string {
  if (layout === 'nginx-include') return 'include certs/tls.conf;'
  const [certificate, key] = layout === 'combined' ? ['tls.pem', 'tls.pem'] : ['tls.crt', 'tls.key']
  return `ssl_certificate certs/${certificate}; ssl_certificate_key certs/${key};`
}

async function configFor(layout: NginxLayout, place: Place): Promise<string> {
  const { folder, port } = place
  const directory = place.path('certs')
  const test = [...(await command(place)), '-t', '-q', '-e', 'stderr']
  return JSON.stringify({
    admin: { socket: place.path('control.sock') },
    certificates: [
      {
        name: 'web',
        source: { kind: 'dev-ca', directory: `${folder}/ca`, commonName: 'web.example.com' },
        outputs: [layout === 'combined' ? { kind: 'combined', directory } : { kind: 'pem', directory, layout }],
        reload: [{ kind: 'signal', pidFile: place.path('nginx.pid'), process: 'nginx', test }],
        verify: [{ kind: 'tls', address: `127.0.0.1:${port}`, workers: 2 }],
      },
    ],
  })
}

/**
 * An nginx that is upgraded to another binary (https://nginx.org/en/docs/control.html) in the middle of its rotations: before the third
 * one the new master starts beside the old one, and only once the next certificate is on disk are the old workers sent away.
 */
export function upgradedNginx(layout: NginxLayout): Consumer {
  const upgrades: Promise<void>[] = []
  const { prepare } = nginxConsumer(layout)
  return nginxConsumer(layout, {
    name: `nginx, ${layout}, upgraded`,
    prepare: async (place) => {
      await prepare?.(place)
      // While its parent is the process that started it, as without a daemon, it ignores SIGUSR2 (ngx_signal_handler).
      const text = await readFile(place.path('nginx.conf'), 'utf8')
      await place.write('nginx.conf', text.replace('daemon off;', 'daemon on;'))
    },
    start: startDaemon,
    between: async (done, place, { pid: old = 0 }) => {
      if (done === 2) {
        const before = await certificateIn(place)
        process.kill(old, 'SIGUSR2')
        await until('the pid file names the new master', async () => {
          const pid = await pidIn(place)
          return pid !== old && pid
        })
        assert.equal(await pidIn(place, 'nginx.pid.oldbin'), old)
        upgrades.push(finishUpgrade(place, old, before))
      }
      if (done === 3) {
        await Promise.all(upgrades)
        assert.equal(upgrades.length, 1)
      }
    },
  })
}

/** A daemon is nobody's child: it is ended by its pid file, also when the tests end without disposing of it. */
async function startDaemon(place: Place): Promise<Server> {
  const log = () => readFile(place.path('error.log'), 'utf8').catch(() => '')
  await using starting = startServer({ argv: [...(await command(place)), '-e', 'error.log'] })
  const pid = await until('nginx has a pid file', async () => (await pidIn(place)) || undefined).catch((cause) => {
    throw new Error(`${starting.log()}`, { cause })
  })
  const end = (name = 'nginx.pid') => {
    const text = existsSync(place.path(name)) ? readFileSync(place.path(name), 'utf8') : ''
    if (text !== '') process.kill(Number(text), 'SIGTERM')
  }
  const endAll = () => ['nginx.pid.oldbin', 'nginx.pid'].map(end)
  process.once('exit', endAll)
  return {
    pid,
    log,
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', endAll)
      endAll()
      await until('nginx has ended', () => !existsSync(place.path('nginx.pid')))
    },
  }
}

/** In the middle of the next rotation the old workers are sent away, and then the old master. */
async function finishUpgrade(place: Place, old: number, before: string): Promise<void> {
  await until('the next certificate is on disk', async () => (await certificateIn(place)) !== before)
  process.kill(old, 'SIGWINCH')
  await until('the old master has no workers', async () => (await childrenOf(old)).length === 1)
  process.kill(old, 'SIGQUIT')
  await until('the old master is gone', async () => !existsSync(place.path('nginx.pid.oldbin')))
}

const certificateIn = (place: Place) => readFile(place.path('certs/tls.crt'), 'utf8')
const pidIn = async (place: Place, name = 'nginx.pid') =>
  Number(await readFile(place.path(name), 'utf8').catch(() => ''))

/** The new master is one of them. */
async function childrenOf(pid: number): Promise<readonly string[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return text.trim().split(' ')
}
