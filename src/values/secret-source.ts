import { randomUUID } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { Clock } from '../clock.ts'
import { type Finding, findingOf } from '../core/finding.ts'
import type { Reading, Snapshot } from '../core/snapshot.ts'
import { SidecarError } from '../errors.ts'
import type { Origin } from '../sources/source.ts'
import type { ValueSource } from './value.ts'

type Readings = Readonly<Record<string, Reading>>

/** A revocation that failed is tried again after this, ms. */
const GIVE_BACK_AGAIN_MS = 300_000

/**
 * All values of a secret as one source: each looked at when it is due, replaced when it must be, and the others left alone. What was made by
 * an earlier process is made anew once: its lease ends with the token of that one.
 */
export function createSecretSource(
  name: string,
  sources: Readonly<Record<string, ValueSource>>,
  clock: Pick<Clock, 'now' | 'elapsed'>,
): Origin<Snapshot> {
  const entries = Object.entries(sources)
  const origin = `secret ${name}: ${entries.map(([value, source]) => `${value}=${source.origin}`).join(', ')}`
  /** When each value is looked at next, by `clock.elapsed()`; one that is not listed at once. */
  const dueAt = new Map<string, number>()
  /** What this process made: in service, and not yet in service. */
  const held = new Map<string, Reading>()
  const spare = new Map<string, Reading>()
  /** Of what is in service: what has to be made anew. */
  const spent = new Set<string>()
  const leaving = new Map<Reading, { readonly source: ValueSource; at: number }>()

  return {
    origin,
    // What is sent to Vault is a part of it.
    otherwise: 'its values are asked for in another way now',
    issues: entries.some(([, source]) => source.issues),
    ttlMs: undefined,
    examine: (signal) => Promise.all(entries.map(([value, source]) => examined(value, source, signal))),
    fetch: async (signal) =>
      compose(await all(entries, (value, source) => spareOf(value) ?? obtain(value, source, signal))),
    polling: { afterMs, look, prolonged, delivered },
  }

  /** What was made for a delivery that failed is not made again; nor what is in service, where only another value has to be. */
  function spareOf(value: string): Reading | undefined {
    const reading = spare.get(value) ?? (spent.size > 0 && !spent.has(value) ? held.get(value) : undefined)
    return reading && isWorthServing(reading, clock.now()) ? reading : undefined
  }

  async function obtain(value: string, source: ValueSource, signal: AbortSignal): Promise<Reading> {
    const reading = await source.read(signal)
    planNext(value, source, reading)
    if (reading.made) spare.set(value, reading)
    return reading
  }

  function planNext(value: string, source: ValueSource, reading: Reading): void {
    dueAt.set(value, clock.elapsed() + source.afterMs(reading))
  }

  function compose(readings: Readings): Snapshot {
    const all = Object.values(readings)
    const receivedAt = clock.now()
    return {
      origin,
      // Drawn, not computed: from a digest a short secret could be guessed.
      fingerprint: randomUUID(),
      ...summary(readings),
      notBefore: Math.min(receivedAt, ...all.map((reading) => reading.receivedAt)),
      receivedAt,
      readings,
    }
  }

  function afterMs(): number {
    const times = [...entries.map(([value]) => dueAt.get(value) ?? 0), ...[...leaving.values()].map(({ at }) => at)]
    return Math.max(Math.min(...times) - clock.elapsed(), 0)
  }

  async function look(serving: Snapshot, signal: AbortSignal): Promise<Snapshot | undefined> {
    // First, since what fails here must not lose what a look has found.
    await giveBack(signal)
    const before = serving.readings
    for (const [value] of entries) {
      const reading = before[value]
      const isOver = reading && reading.notAfter <= clock.now()
      const isOwn = [held, spare].some((own) => own.get(value)?.fields === reading?.fields)
      if (!reading || isOver || (reading.lease && !isOwn)) spent.add(value)
      else if (reading.made && !isOwn) held.set(value, reading)
    }
    const due = entries.filter(([value]) => !spent.has(value) && (dueAt.get(value) ?? 0) <= clock.elapsed())
    const seen = await all(due, (value, source) => lookAt(value, source, before[value], signal)).catch((error) => {
      // What the others have found is lost with this look; the next one must not miss it.
      for (const [value] of due) dueAt.delete(value)
      throw error
    })
    if (spent.size > 0) return undefined
    const readings = { ...before, ...seen }
    const isChanged = entries.some(([value]) => !isSame(readings[value], before[value]))
    return isChanged ? compose(readings) : { ...serving, ...summary(readings), readings }
  }

  async function lookAt(
    value: string,
    source: ValueSource,
    before: Reading | undefined,
    signal: AbortSignal,
  ): Promise<Reading | undefined> {
    const reading = before && (await source.look(before, signal))
    if (!reading) {
      spent.add(value)
      return before
    }
    planNext(value, source, reading)
    if (held.has(value)) held.set(value, reading)
    // Where nothing changed the old one stays, with the end of its life put off.
    return isSame(reading, before) ? { ...reading, fields: before.fields } : reading
  }

  /** What a look that failed at another value has renewed lives on. */
  function prolonged(serving: Snapshot): Snapshot {
    const kept = Object.entries(serving.readings).map(([value, reading]) => {
      const own = held.get(value)
      return [value, own?.fields === reading.fields ? own : reading] as const
    })
    const readings = Object.fromEntries(kept)
    return { ...serving, ...summary(readings), readings }
  }

  function delivered(snapshot: Snapshot): Snapshot {
    const { readings } = snapshot
    for (const [value, source] of entries) {
      const [now, before] = [readings[value], held.get(value)]
      if (!now?.made || spare.get(value)?.fields !== now.fields) continue
      spare.delete(value)
      held.set(value, now)
      if (before && source.discard && source.overlapMs !== undefined)
        leaving.set(before, { source, at: clock.elapsed() + source.overlapMs })
    }
    spent.clear()
    return snapshot
  }

  async function giveBack(signal: AbortSignal): Promise<void> {
    for (const [reading, goer] of leaving) {
      if (goer.at > clock.elapsed()) continue
      // What cannot be given back must not keep the others from being looked at.
      goer.at = clock.elapsed() + GIVE_BACK_AGAIN_MS
      await goer.source.discard?.(reading, signal)
      leaving.delete(reading)
    }
  }
}

const isSame = (a: Reading | undefined, b: Reading | undefined) =>
  isDeepStrictEqual(a?.fields.reveal(), b?.fields.reveal())

/** Material in hand is used while at least a third of its life is left. */
const isWorthServing = ({ receivedAt, notAfter }: Reading, now: number) => notAfter - now >= (notAfter - receivedAt) / 3

const summary = (readings: Readings) => ({
  serial: Object.entries(readings)
    .map(([value, { version }]) => (version === '' ? value : `${value} ${version}`))
    .join(', '),
  notAfter: Math.min(...Object.values(readings).map(({ notAfter }) => notAfter)),
})

async function examined(value: string, source: ValueSource, signal: AbortSignal): Promise<Finding> {
  const finding = await source.examine(signal).catch((thrown: unknown): Finding => {
    signal.throwIfAborted()
    return findingOf(thrown)
  })
  return { ...finding, what: `${value}: ${finding.what}` }
}

/** All at once. Each is waited for even when another fails, so that what Vault made is not lost; the error names the value. */
async function all(
  entries: readonly (readonly [string, ValueSource])[],
  work: (value: string, source: ValueSource) => Reading | Promise<Reading | undefined>,
): Promise<Readings> {
  const results = await Promise.allSettled(
    entries.map(async ([value, source]) => [value, await work(value, source)] as const),
  )
  const readings: Record<string, Reading> = {}
  for (const [index, result] of results.entries()) {
    if (result.status === 'rejected') throw naming(entries[index]?.[0] ?? '', result.reason)
    const [value, reading] = result.value
    if (reading) readings[value] = reading
  }
  return readings
}

function naming(value: string, reason: unknown): unknown {
  if (!(reason instanceof SidecarError)) return reason
  const { code, message, retryAfterMs, mayHaveIssued } = reason
  const options = { cause: reason, mayHaveIssued, ...(retryAfterMs !== undefined && { retryAfterMs }) }
  return new SidecarError(code, `value "${value}": ${message}`, options)
}
