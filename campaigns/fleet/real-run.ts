import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Certferry, LogLine } from '../../test/support/certferry.ts'
import { bundleOnce } from '../../test/support/fault-rig.ts'
import { createStage, type Stage } from '../../test/support/stage.ts'
import { startVault, type TestVault } from '../../test/support/vault.ts'
import { randomFrom } from '../kill-run.ts'
import { type Account, createLedger, type Ledger } from './ledger.ts'
import type { Answer, OutageKind } from './vault-model.ts'

export interface RealPlan {
  readonly processes: number
  readonly lifeMs: number
  readonly startWithinMs: number
  /** `refused` is for the simulation: a Vault that is killed forgets what it issued. */
  readonly outage: { readonly from: number; readonly to: number; readonly kind: Exclude<OutageKind, 'refused'> }
  readonly quotaPerSecond: number
  readonly lastsMs: number
  /** Decides when each process starts. */
  readonly seed: number
}

export interface RealRun {
  /** Requests for a certificate in each second: those carried out by the audit log of Vault, those refused by the logs of the sidecars. */
  readonly asked: Uint32Array
  readonly account: Account
  /** Certificates by the audit log; the account has them by the logs of the sidecars. */
  readonly audited: number
  /** When the outage really was, ms since the first start. */
  readonly outage: { readonly from: number; readonly to: number }
  /** From the decision to renew to the new set on disk, in the middle and at worst, ms. */
  readonly renewalMs: { readonly median: number; readonly worst: number }
  /** Of a process, on average; files that they share are counted once for all of them together. */
  readonly memory: { readonly proportionalBytes: number; readonly anonymousBytes: number }
  /** Failures that are no answer to a request: how many of each. */
  readonly otherFailures: Readonly<Record<string, number>>
}

export interface Watch {
  readonly signal: AbortSignal
  readonly onProgress: (line: string) => void
}

/** As many processes of certferry, each with one certificate, with one Vault that has a rate-limit quota and goes away for a while. */
export async function runFleet(plan: RealPlan, { signal, onProgress }: Watch): Promise<RealRun> {
  await using stack = new AsyncDisposableStack()
  // Each process and its stage end with us, however we do.
  process.setMaxListeners(100 + 2 * plan.processes)
  const { program, remove } = await bundleOnce()
  stack.defer(remove)
  const compileCache = await mkdtemp(join(tmpdir(), 'certferry-fleet-'))
  stack.defer(() => rm(compileCache, { recursive: true, force: true }))
  const vault = stack.use(await startVault())
  await vault.setupPki()
  const stages: Stage[] = []
  // The last one only fills the compile cache.
  for (let made = 0; made <= plan.processes; made++) {
    signal.throwIfAborted()
    const stage = stack.use(await createStage({ vault, program }))
    await stage.configure(stage.web({ served: false, layout: 'generation', ttl: `${plan.lifeMs / 1000}s` }))
    stages.push(stage)
  }
  const env = { MALLOC_ARENA_MAX: '1', NODE_OPTIONS: '--max-semi-space-size=1', NODE_COMPILE_CACHE: compileCache }
  await warmUp(stages.pop(), env)
  await vault.api('POST', 'sys/quotas/rate-limit/fleet', { path: 'pki/', rate: plan.quotaPerSecond })
  const warmUps = (await vault.audited()).filter(isSign).length

  onProgress(`${plan.processes} processes start`)
  const startedAt = Date.now()
  const log = createFleetLog(plan, startedAt)
  const running: Certferry[] = []
  stack.defer(async () => {
    await Promise.all(running.map((process) => process.stop()))
  })
  const elsewhere = new AbortController()
  const outage = disturb(vault, plan, { startedAt, signal: AbortSignal.any([signal, elsewhere.signal]), onProgress })
  // Whoever waits for it hears of its failure; until then nobody is to be told.
  outage.catch(() => undefined)
  stack.defer(() => elsewhere.abort())
  for (const [index, at] of startTimes(plan).entries()) {
    await sleep(Math.max(startedAt + at - Date.now(), 0), undefined, { signal })
    const process = stages[index]?.certferry({ env, onLine: (line) => log.read(index, line) })
    if (process) running.push(process)
  }
  onProgress(`all started after ${Math.round((Date.now() - startedAt) / 1000)} s`)
  const been = await outage
  await sleep(Math.max(startedAt + plan.lastsMs - Date.now(), 0), undefined, { signal })

  const signs = (await vault.audited()).filter(isSign).slice(warmUps)
  for (const { at } of signs) log.count(at - startedAt)
  const gone = running.filter(({ pid }) => !isAlive(pid)).length
  if (gone > 0) throw new Error(`${gone} processes ended by themselves`)
  const memory = await meanMemory(running.map(({ pid }) => pid))
  return { ...log.close(Date.now() - startedAt), audited: signs.length, outage: been, memory }
}

const isSign = ({ path, error }: { readonly path: string; readonly error: string }) =>
  path.startsWith('pki/sign/') && error === ''

/** One run to its end: Node writes its compile cache when a process stops. */
async function warmUp(stage: Stage | undefined, env: Readonly<Record<string, string>>): Promise<void> {
  if (!stage) return
  await using process = stage.certferry({ env })
  await process.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await process.stop()
}

function startTimes({ processes, startWithinMs, seed }: RealPlan): number[] {
  const random = randomFrom(seed)
  return Array.from({ length: processes }, () => random() * startWithinMs).toSorted((a, b) => a - b)
}

interface Disturbance extends Watch {
  readonly startedAt: number
}

async function disturb(vault: TestVault, { outage }: RealPlan, { startedAt, signal, onProgress }: Disturbance) {
  const isSealed = outage.kind === 'sealed'
  await sleep(outage.from, undefined, { signal })
  const from = Date.now() - startedAt
  if (isSealed) await vault.seal()
  else process.kill(vault.pid, 'SIGSTOP')
  onProgress(`Vault ${isSealed ? 'sealed' : 'suspended'} after ${Math.round(from / 1000)} s`)
  try {
    await sleep(Math.max(startedAt + outage.to - Date.now(), 0), undefined, { signal })
  } finally {
    if (isSealed) await vault.unseal()
    else process.kill(vault.pid, 'SIGCONT')
  }
  const to = Date.now() - startedAt
  onProgress(`Vault back after ${Math.round(to / 1000)} s`)
  return { from, to }
}

/** What the sidecars tell of their requests. A try that met an open circuit or a spent budget sent none. */
const ANSWERS: Readonly<Record<string, Exclude<Answer['kind'], 'issued'>>> = {
  vault_sealed: 'sealed',
  rate_limited: 'limited',
  vault_timeout: 'timeout',
  vault_unreachable: 'reset',
}
const ANSWER_LIMIT_MS = 10_000

function createFleetLog({ processes, outage, lastsMs }: RealPlan, startedAt: number) {
  const asked = new Uint32Array(Math.ceil(lastsMs / 1000) + 60)
  const ledger: Ledger = createLedger(processes, outage.to)
  const otherFailures: Record<string, number> = {}
  const durations: number[] = []
  const count = (at: number) => {
    const second = Math.floor(at / 1000)
    asked[second] = (asked[second] ?? 0) + 1
  }
  const fail = (index: number, at: number, reason: string) => {
    const kind = ANSWERS[reason]
    if (!kind) {
      otherFailures[reason] = (otherFailures[reason] ?? 0) + 1
      return
    }
    const sentAt = kind === 'timeout' ? at - ANSWER_LIMIT_MS : at
    ledger.failed(index, sentAt, kind)
    // Vault may have carried out the others, and tells itself.
    if (kind === 'limited' || kind === 'sealed') count(sentAt)
  }
  return {
    count,
    read: (index: number, line: LogLine) => {
      const at = Date.parse(line.time) - startedAt
      if (line.event === 'rotation.failed') fail(index, at, String(line.reason))
      if (line.event !== 'rotation.finished' || line.issued !== true) return
      ledger.issued(index, at, Date.parse(String(line.notAfter)) - startedAt)
      durations.push(Number(line.durationMs))
    },
    close: (at: number) => {
      const sorted = durations.toSorted((a, b) => a - b)
      const renewalMs = {
        median: sorted[Math.floor(sorted.length / 2)] ?? Number.NaN,
        worst: sorted.at(-1) ?? Number.NaN,
      }
      return { asked, account: ledger.close(at), otherFailures, renewalMs }
    },
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** proc(5): smaps_rollup, in kB. */
async function meanMemory(pids: readonly number[]): Promise<RealRun['memory']> {
  const texts = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/smaps_rollup`, 'utf8')))
  const mean = (field: string) =>
    (texts.reduce((sum, text) => sum + Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]), 0) * 1024) /
    texts.length
  return { proportionalBytes: mean('Pss'), anonymousBytes: mean('Anonymous') }
}
