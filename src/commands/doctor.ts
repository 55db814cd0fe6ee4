import { styleText } from 'node:util'
import { loadConfig } from '../config/config.ts'
import type { Bundle } from '../core/bundle.ts'
import type { Content } from '../core/content.ts'
import { type Finding, findingOf } from '../core/finding.ts'
import type { Snapshot } from '../core/snapshot.ts'
import type { TrustSet } from '../core/trust.ts'
import { formatDuration } from '../core/units.ts'
import { ERRORS } from '../errors.ts'
import { openIdle } from '../idle.ts'
import { peek, peekAs } from '../outputs/peek.ts'
import { trustFile } from '../outputs/trust-file.ts'
import { examineVolume } from '../outputs/volume.ts'
import type { Managed, ManagedCertificate } from '../rotation.ts'
import type { TokenInfo, Vault } from '../vault/client.ts'
import { count, counts, type Io, print, printFinding } from './io.ts'
import { examineSource } from './source-findings.ts'

const FAILED = 69
/** For each thing looked at. */
const LIMIT_MS = 10_000

/** Looks for what would fail before it fails. Returns the exit code: 0 when nothing was found, 69 otherwise. Issues no certificate. */
export async function doctor(file: string, io: Io): Promise<number> {
  const config = loadConfig(file, io.env)
  await using idle = openIdle(config, io.env)
  const limit = () => AbortSignal.any([io.signal, AbortSignal.timeout(LIMIT_MS)])
  const tell = createTeller(io)
  tell.section('config')
  tell.finding({ ok: true, what: `${file} is valid: ${counts(config)}` })
  for (const vault of idle.vaults.all) {
    tell.section('Vault')
    for await (const finding of examineVault(vault, limit)) tell.finding(finding)
  }
  for (const { cert } of idle.certificates) {
    tell.section(cert.name)
    for await (const finding of examineCertificate(cert, limit)) tell.finding(finding)
  }
  for (const { secret } of idle.secrets) {
    tell.section(secret.name)
    for await (const finding of examineSecret(secret, limit)) tell.finding(finding)
  }
  for (const { trust } of idle.trust) {
    tell.section(trust.name)
    for await (const finding of examineTrust(trust, limit)) tell.finding(finding)
  }
  return tell.total()
}

/** A fresh limit for one thing looked at. */
type Limit = () => AbortSignal

async function* examineVault(vault: Vault, limit: Limit): AsyncGenerator<Finding> {
  const health = yield* attempt(
    () => vault.health(limit()),
    ({ version }) => `${vault.address} answers (Vault ${version})`,
  )
  if (!health) return
  if (health.sealed) yield { ok: false, what: 'it is sealed', fix: ERRORS.VAULT_SEALED.hint }
  else if (!health.usable)
    yield { ok: false, what: 'this node does not serve requests', fix: ERRORS.VAULT_UNUSABLE.hint }
  yield* await vault.lookupSelf(limit()).then(judgeToken, (error: unknown) => [failed(error)])
}

function judgeToken(token: TokenInfo | undefined): Finding[] {
  if (!token) {
    return [
      {
        ok: undefined,
        what: 'login works; the token may not look at itself, so its policies and its life are not known',
        fix: 'For the doctor only: path "auth/token/lookup-self" { capabilities = ["read"] }',
      },
    ]
  }
  const { displayName, policies, ttlMs } = token
  const life = ttlMs === 0 ? 'never expires' : `lives ${formatDuration(ttlMs)}`
  const works: Finding = {
    ok: true,
    what: `login works${displayName && ` as ${displayName}`}: policies ${policies.join(', ')}; token ${life}`,
  }
  if (!policies.includes('root')) return [works]
  const fix = 'Use a role whose policy allows only what certferry needs (see docs/vault-policies.md).'
  return [works, { ok: undefined, what: 'this is a root token', fix }]
}

/** Before the first set is on disk the target cannot run with it: what is wrong with it then is no problem yet. */
async function* ofTarget(current: Content | undefined, findings: AsyncIterable<Finding>): AsyncGenerator<Finding> {
  const fix = 'To be expected before the first set is there; look again after it.'
  for await (const finding of findings)
    yield current || finding.ok !== false ? finding : { ok: undefined, what: finding.what, fix }
}

async function* examineCertificate(cert: ManagedCertificate, limit: Limit): AsyncGenerator<Finding> {
  yield* await examineSource(cert, limit).catch((error: unknown) => [failed(error)])
  // What they need besides their directory: a password, programs. Of the good it is not worth a line.
  for (const { prepare } of cert.outputs) if (prepare) yield* onlyFailure(prepare)
  yield* examineVolumes(cert)
  for (const remote of cert.remotes) {
    yield* attempt(
      () => remote.inspect(limit()),
      (found) => found,
    )
  }
  const { current } = await peek(cert.outputs[0]?.directory ?? '')
  yield* ofTarget(current, askTarget(cert, limit))
  if (current) yield* examineRevocation(cert, current, limit)
  if (cert.verifiers.length === 0) {
    yield {
      ok: undefined,
      what: 'no verifier: nobody will know whether the target serves it',
      fix: 'Add verify: [{ kind: tls, address: … }].',
    }
  }
}

/** Of the certificate on disk, where the config has it asked about. */
async function* examineRevocation(
  { revocation }: ManagedCertificate,
  current: Bundle,
  limit: Limit,
): AsyncGenerator<Finding> {
  if (!revocation?.check) return
  const what = `certificate ${current.serial}`
  try {
    const { status, by, reason } = await revocation.check(current, limit())
    if (status === 'good') yield { ok: true, what: `${what} is not revoked, says ${by}` }
    else if (status === 'revoked')
      yield {
        ok: false,
        what: `${what} is revoked, says ${by}${reason === undefined ? '' : ` (${reason})`}`,
        fix: 'certferry run replaces it at once with onRevoked: rotate; otherwise certferry rotate does.',
      }
    else yield { ok: undefined, what: `${what}: ${by} does not know it`, fix: ERRORS.REVOCATION_UNKNOWN.hint }
  } catch (error) {
    // It counts as good then.
    yield { ...failed(error), ok: undefined }
  }
}

async function* onlyFailure(work: () => Promise<void>): AsyncGenerator<Finding> {
  try {
    await work()
  } catch (error) {
    yield failed(error)
  }
}

async function* examineTrust(trust: Managed<TrustSet>, limit: Limit): AsyncGenerator<Finding> {
  yield* await trust.source.examine(limit()).catch((error: unknown) => [failed(error)])
  for (const { prepare } of trust.outputs) if (prepare) yield* onlyFailure(prepare)
  yield* examineVolumes(trust)
  const { current } = await peekAs(trustFile, trust.outputs[0]?.directory ?? '')
  yield* ofTarget(current, askReloaders(trust, limit))
  yield* ofTarget(current, examineProof(trust, current, limit))
}

/** Whether the target trusts what is on disk. */
async function* examineProof(
  { verifiers }: Managed<TrustSet>,
  current: TrustSet | undefined,
  limit: Limit,
): AsyncGenerator<Finding> {
  if (verifiers.length === 0)
    yield {
      ok: undefined,
      what: 'no verifier: nobody will know whether the target trusts it',
      fix: 'Add verify: [{ kind: client-ca, address: … }].',
    }
  for (const { description, probe } of verifiers) {
    const served = await probe(limit(), current)
    const isInForce = served.up && served.fingerprint === current?.fingerprint
    const why = served.up ? served.serial : served.why
    if (isInForce) yield { ok: true, what: `${description}: what is on disk is in force` }
    else yield { ok: false, what: `${description}: ${why}`, fix: 'Start the target, reload it, or correct verify.' }
  }
}

async function* examineSecret(secret: Managed<Snapshot>, limit: Limit): AsyncGenerator<Finding> {
  yield* await secret.source.examine(limit()).catch((error: unknown) => [failed(error)])
  for (const { directory, names, prepare } of secret.outputs) {
    if (!prepare) continue
    yield* attempt(prepare, () => `${directory}/${names.join(', ')} can be written in this form`)
  }
  yield* examineVolumes(secret)
  yield* askReloaders(secret, limit)
}

async function* examineVolumes<C extends Content>({ outputs }: Managed<C>): AsyncGenerator<Finding> {
  for (const directory of new Set(outputs.map((output) => output.directory))) {
    yield* attempt(
      () => examineVolume(directory),
      (found) => found,
    )
  }
}

async function* askReloaders<C extends Content>(cert: Managed<C>, limit: Limit): AsyncGenerator<Finding> {
  for (const reloader of cert.reloaders) {
    yield* attempt(
      () => reloader.inspect(),
      (found) => `would tell: ${found}`,
    )
    if (reloader.testCommand === undefined) continue
    const none = { serial: '', fingerprint: '', notAfter: 0, lifetimeMs: 0, isFirst: false, directories: [] }
    yield* attempt(
      () => reloader.test({ ...none, certificates: [cert.name] }, limit()),
      () => `${reloader.testCommand} passes`,
    )
  }
}

async function* askTarget(cert: ManagedCertificate, limit: Limit): AsyncGenerator<Finding> {
  yield* askReloaders(cert, limit)
  for (const verifier of cert.verifiers) {
    const served = await verifier.probe(limit())
    if (served.up)
      yield {
        ok: true,
        what: `${verifier.description} answers, serial ${served.serial} until ${new Date(served.notAfter).toISOString()}`,
      }
    else
      yield {
        ok: false,
        what: `${verifier.description} does not answer: ${served.why}`,
        fix: 'Start the target, or correct verify.address.',
      }
  }
}

/** A finding that is fine when `work` succeeds; hands its result on. */
async function* attempt<T>(work: () => Promise<T>, say: (result: T) => string): AsyncGenerator<Finding, T | undefined> {
  try {
    const result = await work()
    yield { ok: true, what: say(result) }
    return result
  } catch (error) {
    yield failed(error)
    return undefined
  }
}

function failed(thrown: unknown): Finding {
  if (thrown instanceof DOMException && thrown.name === 'TimeoutError')
    return { ok: false, what: `no answer within ${formatDuration(LIMIT_MS)}`, fix: ERRORS.VAULT_TIMEOUT.hint }
  return findingOf(thrown)
}

function createTeller(io: Io) {
  const paint = (style: Parameters<typeof styleText>[0], text: string) => styleText(style, text, { stream: io.stdout })
  let bad = 0
  return {
    section: (title: string) => print(io, paint('bold', title)),
    finding: (finding: Finding) => {
      if (finding.ok === false) bad += 1
      printFinding(io, finding, '  ')
    },
    total: (): number => {
      print(
        io,
        bad > 0 ? paint('red', `${count(bad, 'problem')} found`) : paint('green', 'nothing found that would fail'),
      )
      return bad > 0 ? FAILED : 0
    },
  }
}
