import { assertUsable, type Bundle } from '../../src/core/bundle.ts'
import { isSameContent } from '../../src/core/content.ts'
import { SidecarError } from '../../src/errors.ts'
import { keepFresh, type LoopRequest } from '../../src/keep-fresh.ts'
import type { EventMap, EventName } from '../../src/observe/events.ts'
import type { FileSet } from '../../src/outputs/output.ts'
import type { Memory, Store } from '../../src/outputs/store.ts'
import type { Report } from '../../src/report.ts'
import type { Revocation } from '../../src/revocation/revocation.ts'
import type { ManagedCertificate } from '../../src/rotation.ts'
import { createScheduler } from '../../src/scheduler.ts'
import { createTestCa } from './ca.ts'
import { createFakeClock, type FakeClock, type FakeClockOptions, promisesSettled } from './clock.ts'

export const T0 = Date.UTC(2026, 0, 1)
/** The CA of all certificates never expires (RFC 5280, 4.1.2.5). */
const ca = await createTestCa({ notAfter: new Date('9999-12-31T23:59:59Z') })
const template = (await ca.issue()).bundle

/** A real bundle under other times, so that thousands cost nothing: valid by the issuer's clock, received by ours. */
export const bundleAt = (clock: Pick<FakeClock, 'now' | 'truth'>, id: string, lifeMs: number): Bundle => ({
  ...template,
  fingerprint: id,
  serial: id,
  origin: 'test',
  notBefore: clock.truth() - 30_000,
  receivedAt: clock.now(),
  notAfter: clock.truth() + lifeMs,
})

const later = (bundle: Bundle, ms: number): Bundle => ({
  ...bundle,
  notBefore: bundle.notBefore + ms,
  notAfter: bundle.notAfter + ms,
})

/** A world on a fake clock: an issuer, a disk and a target, each of which can be made to fail. */
export interface World {
  readonly clock: FakeClock
  readonly events: { name: EventName; event: EventMap[EventName]; at: number }[]
  readonly requests: LoopRequest[]
  /** Bundles issued so far. */
  readonly issued: Bundle[]
  /** Calls to the issuer, refused ones included. */
  asked: number
  reloads: number
  /** Was the last set that the target was told about its first one? */
  toldAsFirst: boolean | undefined
  /** Where outputs are copied to; what it holds, and how often that was written. */
  copy: { holds: string | undefined; written: number }
  /** Rounds of the loop. */
  turns: number
  /** What the disk holds, and what the target serves. */
  disk: { current: Bundle | undefined; previous: Bundle | undefined; memory: Memory }
  target: { up: boolean; serves: string | undefined; refuses: (id: string) => boolean }
  fail: { [What in 'fetch' | 'write' | 'open' | 'copy']?: SidecarError | undefined }
  lifeMs: number
  /** Where the source is looked at: what it has of what is in service, such as another edition. */
  look: ((serving: Bundle) => Bundle) | undefined
  /** What was found out of each certificate by its name, where that is asked. */
  revoked: Set<string>
  /** Certificates that were revoked by our doing, in order; `fails` while that cannot be done. */
  revocations: { readonly done: string[]; fails: boolean }
  /** How far the clock of the issuer is ahead. */
  aheadMs: number
  /** The issuer answers with the last certificate again. */
  repeats: Bundle | undefined
  report(): Report
  /** Starts the loop; a second start is a restart of the process. */
  start(): void
  stop(): Promise<void>
  ring(): void
}

export interface WorldOptions extends Pick<FakeClockOptions, 'random' | 'lateMs'> {
  readonly lifeMs?: number
  readonly verifies?: boolean
  /** The verifier takes whatever the target serves for what is on disk. */
  readonly seesPart?: boolean
  /** There is a copy, which the target reads. */
  readonly copies?: boolean
  /** The source is looked at this often. */
  readonly lookMs?: number | undefined
  readonly revocation?: Partial<Revocation<Bundle>> | undefined
}

export function createWorld({
  lifeMs = 3_600_000,
  verifies = true,
  seesPart = false,
  copies = false,
  lookMs,
  revocation,
  ...clockOptions
}: WorldOptions = {}): World {
  const clock = createFakeClock(T0, { settle: promisesSettled, ...clockOptions })
  let running: { stop: AbortController; ended: Promise<unknown>; ring: () => void } | undefined
  let report: Report | undefined
  const world: World = {
    clock,
    events: [],
    requests: [],
    issued: [],
    asked: 0,
    reloads: 0,
    toldAsFirst: undefined,
    copy: { holds: undefined, written: 0 },
    turns: 0,
    disk: {
      current: undefined,
      previous: undefined,
      memory: { seed: 'seed', issuedAt: [], told: undefined, verified: undefined, rejected: [], condemned: [] },
    },
    target: { up: true, serves: undefined, refuses: () => false },
    fail: {},
    look: undefined,
    revoked: new Set(),
    revocations: { done: [], fails: false },
    lifeMs,
    aheadMs: 0,
    repeats: undefined,
    report: () => {
      if (!report) throw new Error('nothing was reported yet')
      return report
    },
    start: () => {
      const stop = new AbortController()
      const scheduler = createScheduler(clock, (byMs) => emit('clock.stepped', { byMs }))
      const ticking = scheduler.run(stop.signal)
      const alarm = scheduler.alarm(stop.signal)
      const loop = keepFresh(
        certificate(world, { verifies, seesPart, copies, lookMs, revocation }),
        { clock, emit, alarm, requests: world.requests, publish, isStart: true, isEnd: () => stop.signal.aborted },
        stop.signal,
      )
      running = { stop, ended: Promise.allSettled([loop, ticking]), ring: alarm.ring }
    },
    stop: async () => {
      running?.stop.abort(new DOMException('stop', 'AbortError'))
      await running?.ended
    },
    ring: () => running?.ring(),
  }
  const publish = (next: Report) => {
    report = next
    world.turns += 1
  }
  const emit = <Name extends EventName>(name: Name, event: EventMap[Name]) => {
    world.events.push({ name, event, at: clock.now() - T0 })
  }
  return world
}

function certificate(
  world: World,
  {
    verifies = true,
    seesPart = false,
    copies = false,
    lookMs,
    revocation,
  }: Pick<WorldOptions, 'verifies' | 'seesPart' | 'copies' | 'lookMs' | 'revocation'>,
): ManagedCertificate {
  return {
    name: 'web',
    source: {
      origin: 'test',
      issues: true,
      names: undefined,
      algorithm: undefined,
      ttlMs: world.lifeMs,
      examine: async () => [],
      ...(lookMs !== undefined && {
        polling: {
          afterMs: () => lookMs,
          renewAt: () => undefined,
          look: async (serving: Bundle) => world.look?.(serving) ?? serving,
        },
      }),
      fetch: async () => {
        world.asked += 1
        if (world.repeats) return world.issued.at(-1) ?? world.repeats
        if (world.fail.fetch) throw world.fail.fetch
        const bundle = later(bundleAt(world.clock, `c${world.issued.length + 1}`, world.lifeMs), world.aheadMs)
        world.issued.push(bundle)
        return bundle
      },
    },
    assertUsable: (bundle, now) => assertUsable(bundle, { minTtlMs: 1, chain: 'complete' }, now),
    renewal: { jitter: 0 },
    outputs: [],
    remotes: copies ? [copy(world)] : [],
    store: memoryStore(world),
    reloaders: [
      {
        kind: 'test',
        description: 'the target',
        testCommand: undefined,
        inspect: async () => 'the target',
        test: async () => {},
        readsCopies: copies,
        reload: async ({ isFirst }) => {
          world.reloads += 1
          world.toldAsFirst = isFirst
          if (!world.target.up) throw new SidecarError('RELOAD_TARGET_MISSING', 'the target is not there')
          if (world.disk.current && !world.target.refuses(world.disk.current.fingerprint))
            world.target.serves = world.disk.current.fingerprint
        },
      },
    ],
    verifiers: verifies ? [seesPart ? blindVerifier(world) : verifier(world)] : [],
    startupGraceMs: 120_000,
    ...(revocation && { revocation: { ...revocationIn(world), ...revocation } }),
  }
}

function revocationIn(world: World): Revocation<Bundle> {
  const name = ({ fingerprint, serial, notAfter }: Bundle) => ({ fingerprint, serial, notAfter, der: '' })
  return {
    everyMs: 600_000,
    onRevoked: 'rotate',
    check: async ({ fingerprint }) => ({ status: world.revoked.has(fingerprint) ? 'revoked' : 'good', by: 'ocsp' }),
    outdated: name,
    revoke: async ({ fingerprint }) => {
      if (world.revocations.fails) throw new SidecarError('PERMISSION_DENIED', 'it may not be revoked')
      world.revocations.done.push(fingerprint)
    },
  }
}

function copy(world: World): ManagedCertificate['remotes'][number] {
  return {
    place: 'Secret shop/web',
    inspect: async () => 'there',
    publish: async ({ fingerprint }) => {
      if (world.fail.copy) throw world.fail.copy
      const before = world.copy.holds
      if (before === fingerprint) return undefined
      world.copy.holds = fingerprint
      world.copy.written += 1
      return before === undefined ? 'missing' : 'content'
    },
  }
}

function verifier(world: World): ManagedCertificate['verifiers'][number] {
  return {
    kind: 'test',
    description: 'the target',
    probe: async () =>
      world.target.up && world.target.serves !== undefined
        ? { up: true, fingerprint: world.target.serves, serial: world.target.serves, notAfter: T0 }
        : { up: false, why: 'connection refused' },
    verify: async (bundle) => {
      if (!world.target.up) throw new SidecarError('TARGET_DOWN', 'connection refused')
      if (world.target.serves !== bundle.fingerprint)
        throw new SidecarError('RELOAD_NOT_EFFECTIVE', `still serves ${world.target.serves}`)
    },
  }
}

function blindVerifier(world: World): ManagedCertificate['verifiers'][number] {
  const { kind, description, probe } = verifier(world)
  return {
    kind,
    description,
    seesPart: true,
    probe: async (signal, expected) => {
      const seen = await probe(signal)
      return seen.up && expected ? { ...seen, fingerprint: expected.fingerprint } : seen
    },
    verify: async () => {
      if (!world.target.up) throw new SidecarError('TARGET_DOWN', 'connection refused')
    },
  }
}

/** The store's contract without a disk; the real one has its own tests. */
function memoryStore({ disk, fail }: World): Store {
  const trouble = (kind: keyof World['fail']) => {
    const error = fail[kind]
    if (error) throw error
  }
  const pending = (): Bundle | undefined => undefined
  return {
    get current() {
      return disk.current
    },
    get memory() {
      return disk.memory
    },
    open: async () => {
      trouble('open')
      // Opening pins the directory that is there now.
      if (fail.write?.code === 'VOLUME_REPLACED') fail.write = undefined
      return { current: disk.current, pending: pending() }
    },
    remember: async (change) => {
      disk.memory = { ...disk.memory, ...change }
    },
    preflight: async () => trouble('write'),
    apply: async ({ bundle }: FileSet) => {
      trouble('write')
      const changed = !isSameContent(disk.current, bundle)
      if (
        changed &&
        disk.current?.fingerprint !== bundle.fingerprint &&
        disk.current?.fingerprint === disk.memory.verified?.fingerprint
      )
        disk.previous = disk.current
      disk.current = bundle
      return { changed, previous: disk.previous?.fingerprint === bundle.fingerprint ? undefined : disk.previous }
    },
    settle: async (now) => {
      if (!disk.current) return
      disk.previous = disk.current
      disk.memory = { ...disk.memory, verified: { fingerprint: disk.current.fingerprint, at: now } }
    },
    undo: async () => {
      disk.memory = { ...disk.memory, rejected: disk.current ? [disk.current.fingerprint] : [] }
      disk.current = disk.previous
    },
    repair: async () => {
      trouble('write')
      return []
    },
    [Symbol.asyncDispose]: async () => {},
  }
}
