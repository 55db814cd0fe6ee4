import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { styleText } from 'node:util'
import { systemClock } from '../clock.ts'
import { type CertificateConfig, loadConfig } from '../config/config.ts'
import type { Bundle } from '../core/bundle.ts'
import { decide, evolve, initialState } from '../core/state.ts'
import { formatDuration } from '../core/units.ts'
import { toSidecarError } from '../errors.ts'
import { openIdle } from '../idle.ts'
import { mismatchOf, policyOf } from '../keep-fresh.ts'
import { visibleNames } from '../outputs/output.ts'
import { peek } from '../outputs/peek.ts'
import type { ManagedCertificate } from '../rotation.ts'
import { type Io, print } from './io.ts'

/** For each copy looked at. */
const LIMIT_MS = 10_000

/** What `run` would do with one certificate, and when. */
interface Plan {
  readonly name: string
  readonly action: 'renew now' | 'renew later'
  readonly why: string
  readonly at: string
  readonly onDisk: { readonly serial: string; readonly notAfter: string } | null
  readonly ask: string
  readonly write: readonly string[]
  readonly tell: readonly string[]
  readonly verify: readonly string[]
}

/** Says what would be renewed, when, why and who would be told. Asks nobody for a certificate, takes no lock, writes nothing. */
export async function plan(file: string, { json }: { readonly json: boolean }, io: Io): Promise<void> {
  await using idle = openIdle(loadConfig(file, io.env), io.env)
  const plans = await Promise.all(idle.certificates.map(({ config, cert }) => planFor(config, cert)))
  if (json) return print(io, JSON.stringify(plans, null, 2))
  print(io, plans.map((each) => describe(each, io)).join('\n\n'))
}

async function planFor({ name }: CertificateConfig, cert: ManagedCertificate): Promise<Plan> {
  const now = systemClock.now()
  const [first] = cert.outputs
  const { current, memory } = await peek(first?.directory ?? '')
  const task = taskFor(cert, current, memory?.seed ?? '', now)
  const at = task.kind === 'wait' ? task.until : now
  return {
    name,
    action: task.kind === 'wait' ? 'renew later' : 'renew now',
    why: task.kind === 'wait' ? 'good until then' : task.why,
    at: new Date(at).toISOString(),
    onDisk: current ? { serial: current.serial, notAfter: new Date(current.notAfter).toISOString() } : null,
    ask: cert.source.origin,
    write: [
      ...directoriesOf(cert).map((directory) => writes(cert, directory, current !== undefined)),
      ...(await Promise.all(cert.remotes.map(copies))),
    ],
    tell: await Promise.all(
      cert.reloaders.map(async (reloader) =>
        reloader
          .inspect()
          .catch((error: unknown) => `${reloader.description}: not now, ${toSidecarError(error).message}`),
      ),
    ),
    verify: cert.verifiers.map(({ description }) => description),
  }
}

/** What the loop would decide, taking for granted that what is on disk is served. */
function taskFor(cert: ManagedCertificate, current: Bundle | undefined, seed: string, now: number) {
  const policy = policyOf(cert, seed)
  const times = { now, elapsed: 0 }
  const fresh = initialState({ current, pending: undefined }, policy, times, 0)
  if (!current) return decide(fresh, times, undefined)
  const proven = evolve(fresh, { kind: 'served', bundle: current, verified: true, targetUp: true }, policy, {
    ...times,
    random: Math.random,
  })
  return decide(proven, times, mismatchOf(cert, current))
}

const directoriesOf = ({ outputs }: ManagedCertificate) => [...new Set(outputs.map(({ directory }) => directory))]

/** What is written where; and before the first set, which files of somebody else it replaces. */
function writes({ outputs }: ManagedCertificate, directory: string, isOurs: boolean): string {
  const mates = outputs.filter((output) => output.directory === directory)
  const layout = mates[0]?.layout ?? 'generation'
  const names = visibleNames(
    layout,
    mates.flatMap((output) => output.names),
  )
  const foreign = isOurs ? [] : names.filter((name) => existsSync(join(directory, name)))
  return `${directory} (${layout}): ${names.join(' ')}${foreign.length > 0 ? `; replaces the ${foreign.join(', ')} that is there` : ''}`
}

const copies = ({ place, inspect }: ManagedCertificate['remotes'][number]): Promise<string> =>
  inspect(AbortSignal.timeout(LIMIT_MS)).catch(
    (error: unknown) => `${place}: not now, ${toSidecarError(error).message}`,
  )

function describe({ name, action, why, at, onDisk, ask, write, tell, verify }: Plan, io: Io): string {
  const paint = (style: Parameters<typeof styleText>[0], text: string) => styleText(style, text, { stream: io.stdout })
  const isNow = action === 'renew now'
  const headline = isNow
    ? `${action}: ${why}`
    : `renew in ${formatDuration(Date.parse(at) - systemClock.now())}, at ${at}`
  const row = (label: string, lines: readonly string[]) =>
    lines.map((line, index) => `  ${paint('dim', (index === 0 ? label : '').padEnd(8))}${line}`)
  return [
    `${paint('bold', name)}  ${paint(isNow ? 'yellow' : 'green', headline)}`,
    ...row('on disk', [onDisk ? `serial ${onDisk.serial}, until ${onDisk.notAfter}` : 'nothing']),
    ...row('ask', [ask]),
    ...row('write', write),
    ...row('tell', tell.length > 0 ? tell : ['nobody']),
    ...row('verify', verify.length > 0 ? verify : ['nobody: the status will say verified: none']),
  ].join('\n')
}
