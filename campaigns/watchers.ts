import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import * as z from 'zod'

const Sighting = z.object({
  serverName: z.string(),
  serial: z.string(),
  notBefore: z.number(),
  first: z.number(),
  last: z.number(),
  count: z.number(),
})
export type Sighting = z.output<typeof Sighting>

const Clients = z.object({
  made: z.number(),
  failed: z.number(),
  expired: z.number(),
  slowestMs: z.number(),
  failures: z.array(z.string()),
  sightings: z.array(Sighting),
})

const Observer = z.object({
  reads: z.number(),
  mismatched: z.number(),
  complaints: z.array(z.string()),
  fingerprints: z.array(z.string()),
})

export interface Load {
  readonly port: number
  readonly serverNames: readonly string[]
  readonly caFile: string
  /** How many connect at the same time. */
  readonly clients: number
  /** Between two connections of a client. */
  readonly pauseMs?: number
}

/** Clients that open TLS connections, in a process of their own. */
export const startClients = ({ port, serverNames, caFile, clients, pauseMs = 0 }: Load) =>
  startProgram('tls-clients', [port, serverNames.join(','), caFile, clients, pauseMs].map(String), Clients)

/** Compares certificate and key on disk, in a process of its own. */
export const startObserver = (directories: readonly string[], layouts: readonly string[]) =>
  startProgram('pair-observer', [directories.join(','), ...layouts], Observer)

/** A program of `test/fixtures` that says when it has begun, goes on until its standard input ends, and then prints what it saw. */
async function startProgram<T>(name: string, args: readonly string[], schema: z.ZodType<T>) {
  const file = fileURLToPath(new URL(`../test/fixtures/${name}.ts`, import.meta.url))
  // A group of its own hears no Ctrl-C, so that it can still tell what it saw.
  const child = spawn(process.execPath, [file, ...args], { stdio: ['pipe', 'pipe', 'inherit'], detached: true })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const ended = once(child, 'exit').finally(() => process.removeListener('exit', kill))
  await lines.next()
  return {
    finish: async (): Promise<T> => {
      child.stdin.end()
      const { value } = await lines.next()
      await ended
      return schema.parse(JSON.parse(value ?? ''))
    },
    [Symbol.asyncDispose]: async () => {
      kill()
      await ended
    },
  }
}
