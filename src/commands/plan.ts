import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { styleText } from 'node:util'
import { systemClock } from '../clock.ts'
import { type CertificateConfig, loadConfig, type TrustConfig } from '../config/config.ts'
import { type Content, NEVER } from '../core/content.ts'
import { decide, evolve, initialState } from '../core/state.ts'
import { formatDuration } from '../core/units.ts'
import { toSidecarError } from '../errors.ts'
import { openIdle } from '../idle.ts'
import { mismatchOf, policyOf } from '../keep-fresh.ts'
import { bundleFile } from '../outputs/bundle-file.ts'
import { type RemoteOutput, visibleNames } from '../outputs/output.ts'
import { peekAs } from '../outputs/peek.ts'
import { readingsFile } from '../outputs/readings-file.ts'
import type { Codec } from '../outputs/store.ts'
import { trustFile } from '../outputs/trust-file.ts'
import { AUTO } from '../revocation/revocation.ts'
import type { Managed } from '../rotation.ts'
import { type Io, print } from './io.ts'

/** For each copy looked at. */
const LIMIT_MS = 10_000

/** What `run` would do with one certificate or secret, and when. */
interface Plan {
  readonly name: string
  /** `look`: ask the source whether it has something new. */
  readonly action: 'renew now' | 'renew later' | 'look now' | 'look later'
  readonly why: string
  readonly at: string
  readonly onDisk: { readonly serial: string; readonly notAfter: string | null; readonly origin: string } | null
  /** The source, then those of `fallback`. */
  readonly ask: readonly string[]
  readonly write: readonly string[]
  readonly tell: readonly string[]
  /** Null for a secret: nobody can be asked whether it is used. */
  readonly verify: readonly string[] | null
  /** Of a certificate: what else it goes by. */
  readonly heed: readonly string[]
}

/** Says what would be renewed, when, why and who would be told. Asks nobody for a certificate, takes no lock, writes nothing. */
export async function plan(file: string, { json }: { readonly json: boolean }, io: Io): Promise<void> {
  await using idle = openIdle(loadConfig(file, io.env), io.env)
  const plans = await Promise.all([
    ...idle.certificates.map(async ({ config, cert }) => ({
      ...(await planFor(cert, bundleFile)),
      heed: heededBy(config, idle.trust),
    })),
    ...idle.secrets.map(({ secret }) => planFor(secret, readingsFile)),
    ...idle.trust.map(({ trust }) => planFor(trust, trustFile)),
  ])
  if (json) return print(io, JSON.stringify(plans, null, 2))
  print(io, plans.map((each) => describe(each, io)).join('\n\n'))
}

async function planFor<C extends Content>(cert: Managed<C>, codec: Codec<C>): Promise<Plan> {
  const now = systemClock.now()
  const [first] = cert.outputs
  const { current, memory } = first ? await peekAs(codec, first.directory) : { current: undefined, memory: undefined }
  const { task, renewAt } = taskFor(cert, current, memory?.seed ?? '', now)
  const isLater = task.kind === 'wait'
  const at = isLater ? (renewAt ?? task.until) : now
  const isLook = task.kind === 'poll' || (isLater && renewAt === undefined && cert.source.polling !== undefined)
  return {
    name: cert.name,
    action: `${isLook ? 'look' : 'renew'} ${isLater ? 'later' : 'now'}`,
    why: isLater ? 'good until then' : task.why,
    at: new Date(at).toISOString(),
    onDisk: current ? { serial: current.serial, notAfter: endOf(current), origin: current.origin } : null,
    ask: [cert.source.origin, ...(cert.source.alternatives ?? [])],
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
    verify: codec.file === readingsFile.file ? null : cert.verifiers.map(({ description }) => description),
    heed: [],
  }
}

/** The trust that it waits for, and when it is taken for revoked, or revoked. */
function heededBy(
  { trust, revocation, revokePrevious, revokeOnExit }: CertificateConfig,
  trusts: readonly { readonly config: TrustConfig }[],
): string[] {
  const spread = trusts.find(({ config }) => config.name === trust)?.config.spread
  const { check = 'none', every = 0, onRevoked } = revocation ?? {}
  const asked = check === 'none' ? undefined : (check === 'auto' ? AUTO : check).join(', ')
  return [
    ...(trust === undefined
      ? []
      : [`trust "${trust}": a new CA has to be in force there${spread ? ` for ${formatDuration(spread)}` : ''}`]),
    ...(asked === undefined ? [] : [`revocation: ${asked} asked every ${formatDuration(every)}, then ${onRevoked}`]),
    ...(revokePrevious ? ['revokes what it replaces, once the new one is proven'] : []),
    ...(revokeOnExit ? ['revokes what is in service when certferry run stops'] : []),
  ]
}

/** What the loop would decide, taking for granted that what is on disk is served, and the newest that the source has. */
function taskFor<C extends Content>(cert: Managed<C>, current: C | undefined, seed: string, now: number) {
  const policy = policyOf(cert, seed)
  const times = { now, elapsed: 0 }
  const fresh = initialState({ current, pending: undefined }, policy, times, 0)
  if (!current) return { task: decide(fresh, times, undefined), renewAt: undefined }
  const chance = { ...times, random: Math.random }
  const proven = evolve(fresh, { kind: 'served', bundle: current, verified: true, targetUp: true }, policy, chance)
  const known = cert.source.polling ? evolve(proven, { kind: 'unchanged', bundle: current }, policy, chance) : proven
  return { task: decide(known, times, mismatchOf(cert, current)), renewAt: known.renewAt }
}

const endOf = ({ notAfter }: Content) => (notAfter === NEVER ? null : new Date(notAfter).toISOString())

const directoriesOf = <C extends Content>({ outputs }: Managed<C>) => [
  ...new Set(outputs.map(({ directory }) => directory)),
]

/** What is written where; and before the first set, which files of somebody else it replaces. */
function writes<C extends Content>({ outputs }: Managed<C>, directory: string, isOurs: boolean): string {
  const mates = outputs.filter((output) => output.directory === directory)
  const layout = mates[0]?.layout ?? 'generation'
  const names = visibleNames(
    layout,
    mates.flatMap((output) => output.names),
  )
  const foreign = isOurs ? [] : names.filter((name) => existsSync(join(directory, name)))
  const home = mates[0]?.oneSetWith
  const how = home === undefined ? layout : `one set with ${home}`
  return `${directory} (${how}): ${names.join(' ')}${foreign.length > 0 ? `; replaces the ${foreign.join(', ')} that is there` : ''}`
}

const copies = ({ place, inspect }: Pick<RemoteOutput, 'place' | 'inspect'>): Promise<string> =>
  inspect(AbortSignal.timeout(LIMIT_MS)).catch(
    (error: unknown) => `${place}: not now, ${toSidecarError(error).message}`,
  )

function describe({ name, action, why, at, onDisk, ask, write, tell, verify, heed }: Plan, io: Io): string {
  const paint = (style: Parameters<typeof styleText>[0], text: string) => styleText(style, text, { stream: io.stdout })
  const isNow = action.endsWith(' now')
  const headline = isNow
    ? `${action}: ${why}`
    : `${action.split(' ')[0]} in ${formatDuration(Date.parse(at) - systemClock.now())}, at ${at}`
  const row = (label: string, lines: readonly string[]) =>
    lines.map((line, index) => `  ${paint('dim', (index === 0 ? label : '').padEnd(8))}${line}`)
  return [
    `${paint('bold', name)}  ${paint(isNow ? 'yellow' : 'green', headline)}`,
    ...row('on disk', [
      onDisk
        ? `${onDisk.serial.includes(' ') ? '' : 'serial '}${onDisk.serial}${onDisk.notAfter ? `, until ${onDisk.notAfter}` : ''}${onDisk.origin === ask[0] ? '' : `, from ${onDisk.origin}`}`
        : 'nothing',
    ]),
    ...row(
      'ask',
      ask.map((one, index) => (index === 0 ? one : `else ${one}`)),
    ),
    ...row('write', write),
    ...row('tell', tell.length > 0 ? tell : ['nobody']),
    ...row(
      'verify',
      verify === null || verify.length > 0 ? (verify ?? []) : ['nobody: the status will say verified: none'],
    ),
    ...row('heed', heed),
  ].join('\n')
}
