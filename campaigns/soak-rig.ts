import { join } from 'node:path'
import type { Certferry } from '../test/support/certferry.ts'
import type { Nginx } from '../test/support/nginx.ts'
import { createStage, type Stage } from '../test/support/stage.ts'
import { until } from '../test/support/until.ts'
import type { TestVault } from '../test/support/vault.ts'

export interface SoakRig extends AsyncDisposable {
  readonly stage: Stage
  readonly certferry: Certferry
  readonly nginx: Nginx
  readonly names: readonly string[]
  readonly serverNames: readonly string[]
  readonly directories: readonly string[]
}

export interface SoakParts {
  readonly vault: TestVault
  /** The bundle that runs. */
  readonly program: string
  readonly certificates: number
  readonly ttl: string
}

/** Arena and young generation as in the image (Dockerfile), in a container limited to 128 MiB, of which V8 takes half as the limit of its heap. */
const LIKE_THE_IMAGE = { options: '--max-semi-space-size=1 --max-old-space-size=64', env: { MALLOC_ARENA_MAX: '1' } }

/**
 * Collects all garbage every few seconds. By itself V8 goes over the old objects less than once in twenty minutes here, and what is kept
 * cannot be told from what waits to be freed. What one collection finalizes, the next one frees.
 */
const COLLECTOR = `
require('node:v8').setFlagsFromString('--expose-gc')
const collect = require('node:vm').runInNewContext('gc')
setInterval(() => { collect(); setImmediate(collect) }, 5_000).unref()
`
const PATIENCE = { timeoutMs: 120_000, everyMs: 200 }

/** One certferry with many certificates, all of them served by one nginx by name, each proven once. */
export async function createSoakRig({ vault, program, certificates, ttl }: SoakParts): Promise<SoakRig> {
  await using opened = new AsyncDisposableStack()
  const stage = opened.use(await createStage({ vault, program }))
  const names = Array.from({ length: certificates }, (_, index) => `c${String(index + 1).padStart(2, '0')}`)
  const options = names.map((name) => ({ name, commonName: serverNameOf(name), ttl, verify: { workers: WORKERS } }))
  await stage.configure(...options.map((one) => stage.web(one)))
  const collector = await stage.place('collector.cjs', COLLECTOR)
  const env = { ...LIKE_THE_IMAGE.env, NODE_OPTIONS: `${LIKE_THE_IMAGE.options} --require=${collector}` }
  const certferry = opened.use(stage.certferry({ env }))
  const all = (claim: string, isSo: (status: { serial: string | null; verified: string }) => boolean) =>
    until(`every certificate ${claim}`, async () => (await certferry.status()).certificates.every(isSo), PATIENCE)

  await all('is on disk', ({ serial }) => serial !== null)
  const [first = '', ...others] = names
  const http = others.map((name) => virtualHost(stage, name)).join('\n')
  const server = `server_name ${serverNameOf(first)};`
  const nginx = opened.use(await stage.nginx({ name: first, workers: WORKERS, server, http }))
  await all('is proven to be served', ({ verified }) => verified === 'verified')
  const held = opened.move()
  return {
    stage,
    certferry,
    nginx,
    names,
    serverNames: names.map(serverNameOf),
    directories: names.map((name) => join(stage.volume, name)),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

const WORKERS = 2

const serverNameOf = (name: string) => `${name}.example.com`

const virtualHost = ({ port, volume }: Stage, name: string) =>
  `server {
    listen 127.0.0.1:${port} ssl;
    server_name ${serverNameOf(name)};
    include ${join(volume, name)}/tls.conf;
    location / { return 200 "ok\\n"; }
  }`
