import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import * as z from 'zod'
import { type Layout, render } from '../../src/outputs/output.ts'
import { createTestCa } from './ca.ts'
import { keepNoOrphan } from './child.ts'
import { createProject } from './project.ts'
import { openStore } from './store.ts'
import { makeOutput, makeVolume } from './volume.ts'

const Reads = z.object({ reads: z.number(), mixed: z.number(), errors: z.array(z.string()), sets: z.number() })

/** The real store swaps sets without pause, while processes read: `readers` of them with the client, and one without. */
export async function readWhileSwapping(
  t: TestContext,
  { layout, readers, swaps }: { layout: Layout; readers: number; swaps: number },
) {
  const cas = await Promise.all(Array.from({ length: 4 }, () => createTestCa()))
  const bundles = await Promise.all(cas.map(async (ca) => (await ca.issue({ withIntermediate: false })).bundle))
  const output = makeOutput({ directory: makeVolume(t), layout })
  // By a clock that is ahead, the files are old enough not to be read again at each swap.
  const { store } = await openStore(t, [output], { now: () => Date.now() + 60_000 })
  const swap = async (index: number) => {
    const bundle = bundles[index % bundles.length]
    if (bundle) await store.apply(render([output], bundle))
  }
  await swap(0)
  const start = (way: string) => startFixture('tls-reader', [output.directory, way])
  const running = await Promise.all([...Array.from({ length: readers }, () => start('client')), start('naive')])
  const startedAt = performance.now()
  for (let index = 1; index <= swaps; index += 1) await swap(index)
  const seconds = (performance.now() - startedAt) / 1000
  const ended = await Promise.all(running.map(({ finish }) => finish(Reads)))
  const [naive, ...client] = ended.toReversed()
  return {
    layout,
    swaps,
    seconds: Number(seconds.toFixed(2)),
    reads: client.reduce((sum, { reads }) => sum + reads, 0),
    mixed: client.reduce((sum, { mixed }) => sum + mixed, 0),
    errors: client.flatMap(({ errors }) => errors),
    /** How many of the four sets each reader saw. */
    sets: client.map(({ sets }) => sets),
    /** What a reader meets that opens one file after another. */
    naive: { reads: naive?.reads ?? 0, mixed: (naive?.mixed ?? 0) + (naive?.errors.length ?? 0) },
  }
}

const Clients = z.object({
  handshakes: z.number(),
  requests: z.number(),
  failed: z.number(),
  failures: z.array(z.string()),
  server: z.record(z.string(), z.number()),
  client: z.record(z.string(), z.number()),
})

/**
 * certferry with a development CA keeps the certificates of a server and of its clients; both sides demand the other's, both follow their
 * directories, and clients connect without pause while each certificate is rotated `rotations` times, under proof.
 */
export async function rotateUnderChurn(t: TestContext, program: string, rotations: number) {
  await using project = await createProject({ program })
  const verify = (port: number) => [{ kind: 'tls', address: `127.0.0.1:${port}`, serverName: 'localhost' }]
  const web = (port?: number) => certificateOf(project.folder, 'web', port === undefined ? [] : verify(port))
  const caller = certificateOf(project.folder, 'caller', [])
  project.configure({ certificates: [web(), caller] })
  const first = await project.run('once', '-c', project.configFile)
  if (first.code !== 0) throw new Error(first.stdout + first.stderr)

  const server = await startFixture('mutual-server', [join(project.folder, 'web')])
  project.configure({ certificates: [web(Number(server.greeting)), caller] })
  await using certferry = project.start()
  await certferry.certificate('web', 'is proven to be served', ({ verified }) => verified === 'verified')
  const clients = await startFixture('mutual-clients', [join(project.folder, 'caller'), server.greeting])
  t.after(() => Promise.all([server.stop(), clients.stop()]))

  const committed = { web: new Map<string, number>(), caller: new Map<string, number>() }
  const proven: number[] = []
  for (let done = 0; done < rotations; done += 1) {
    for (const name of ['web', 'caller'] as const) {
      const before = (await certferry.status()).certificates.find((one) => one.name === name)?.serial
      const rotated = project.run('rotate', name, '--wait', '-c', project.configFile)
      const { serial } = await certferry.certificate(
        name,
        'is rotated',
        (one) => one.serial !== null && one.serial !== before,
      )
      // The rename of the link is the commit, and its change of status the time of it.
      const { ctimeMs } = await lstat(join(project.folder, name, '..data'))
      const { code, stdout, stderr } = await rotated
      if (code !== 0 || !serial) throw new Error(stdout + stderr)
      const finished = certferry.log('rotation.finished').findLast((line) => line.certificate === name)
      if (name === 'web' && finished?.verified === true) proven.push(Date.parse(finished.time) - ctimeMs)
      // As OpenSSL and we write a serial that begins with a zero.
      committed[name].set(serial.toLowerCase().replace(/^0+/, ''), ctimeMs)
    }
  }
  const last = [committed.web, committed.caller].flatMap((serials) => [...serials.keys()].slice(-1))
  const seen = await clients.finish(Clients, last)
  await server.stop()
  const delays = (side: 'server' | 'client', from: ReadonlyMap<string, number>) =>
    [...from].map(([serial, at]) => {
      const sight = seen[side][serial]
      return sight === undefined ? Number.NaN : sight - at
    })
  const [toServed, toShown] = [delays('server', committed.web), delays('client', committed.caller)]
  return {
    rotations: committed.web.size + committed.caller.size,
    handshakes: seen.handshakes,
    requests: seen.requests,
    failed: seen.failed,
    failures: seen.failures,
    neverSeen: [...toServed, ...toShown].filter(Number.isNaN).length,
    commitToServedMs: figures(toServed),
    commitToShownByClientMs: figures(toShown),
    commitToProvenMs: figures(proven),
  }
}

const certificateOf = (folder: string, name: string, verify: readonly object[]) => ({
  name,
  source: {
    kind: 'dev-ca',
    directory: join(folder, 'ca'),
    commonName: 'localhost',
    altNames: ['127.0.0.1'],
    ttl: '1h',
  },
  outputs: [{ kind: 'pem', directory: join(folder, name) }],
  verify,
})

function figures(values: readonly number[]) {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b)
  const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? -1)
  return { median: at(0.5), p99: at(0.99) }
}

/** A program of test/fixtures: says a line when it is ready, goes on until its standard input ends, or longer as that says, and tells what it saw. */
async function startFixture(name: string, args: readonly string[]) {
  const file = fileURLToPath(new URL(`../fixtures/${name}.ts`, import.meta.url))
  const child: ChildProcess = spawn(process.execPath, [file, ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  const stop = keepNoOrphan(child)
  const { stdin, stdout } = child
  if (!stdin || !stdout) throw new Error('no pipes')
  const lines = createInterface(stdout)
  const ended = once(child, 'exit')
  const answer = lines[Symbol.asyncIterator]()
  const { value: greeting = '' } = await answer.next()
  return {
    greeting: String(greeting),
    stop,
    finish: async <T>(schema: z.ZodType<T>, told: readonly string[] = []): Promise<T> => {
      stdin.end(told.join('\n'))
      const { value } = await answer.next()
      await ended
      await stop()
      return schema.parse(JSON.parse(String(value)))
    },
  }
}
