import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import * as z from 'zod'
import { SERVER_NAME } from '../../test/support/stage.ts'
import type { Subject } from './subject.ts'

/** What the observer saw of one sidecar, in a piece of time. */
const Observation = z.object({
  subject: z.string(),
  channel: z.enum(['tls', 'disk', 'modes']),
  what: z.string(),
  since: z.number(),
  until: z.number(),
  count: z.number(),
})
export type Observation = z.output<typeof Observation>

const OBSERVER = fileURLToPath(new URL('../../test/fixtures/chaos-observer.ts', import.meta.url))

/** Starts the observer, in a process of its own that nobody disturbs; ready when it has begun. */
export async function startObserver(
  subjects: readonly Subject[],
  onSeen: (seen: Observation) => void,
): Promise<AsyncDisposable> {
  const watched = subjects.map(({ name, layout, directory, stage: { port, caFile } }) => {
    return { name, layout, directory, port, caFile, serverName: SERVER_NAME }
  })
  const child = spawn(process.execPath, [OBSERVER, JSON.stringify(watched)], { stdio: ['pipe', 'pipe', 'inherit'] })
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  const ended = once(child, 'exit')
  const begun = Promise.withResolvers<void>()
  createInterface(child.stdout).on('line', (line) => {
    if (line === 'begun') begun.resolve()
    else onSeen(Observation.parse(JSON.parse(line)))
  })
  await begun.promise
  return {
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', kill)
      kill()
      await ended
    },
  }
}
