import { randomBytes } from 'node:crypto'
import * as z from 'zod'
import type { Clock, Instant } from '../clock.ts'
import { redact } from '../core/secret.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import type { Kubernetes } from './client.ts'
import { readPod } from './owner.ts'

/** Something that `kubectl describe pod` shall show. */
export interface Happening {
  readonly type: 'Normal' | 'Warning'
  /** Why, in one word of CamelCase. */
  readonly reason: string
  /** With the reason it tells what is the same from what is another thing. */
  readonly about: string
  readonly message: string
}

export interface Recorder extends AsyncDisposable {
  /** Returns at once and never throws. */
  record(happening: Happening): void
}

export interface RecorderDeps {
  readonly clock: Clock
  /** Of the pod; asked for unless known. */
  readonly uid: string | undefined
  /** Told once, when events cannot be sent; and again only after some could. */
  readonly onLost: (error: SidecarError) => void
}

/** So many at once, then one in so long: what comes in between is counted. */
const BURST = 10
const EVERY_MS = 10_000
const PAUSE_MS = 10_000
const LONGEST_PAUSE_MS = 300_000
/** Different things to remember. */
const MAX_KNOWN = 100
/** What a stop leaves to those that wait. */
const FLUSH_MS = 1_000
const MAX_MESSAGE = 1000

/**
 * Events (core/v1) on this pod. The same thing again is the same event with a higher count and the latest message, as the kubelet does it. One
 * request at a time, at a bounded rate, beside everything else: what cannot be sent waits, counted, and is dropped where too much waits.
 */
export function createRecorder(api: Kubernetes, { clock, uid, onLost }: RecorderDeps): Recorder {
  const known = new Map<string, Entry>()
  const stop = new AbortController()
  let podUid = uid
  let sending: Promise<void> | undefined
  let failures = 0
  let credit = BURST
  let creditAt = clock.elapsed()

  return {
    record(happening) {
      if (stop.signal.aborted) return
      const entry = remember(happening)
      if (!entry) return
      sending ??= sendAll(stop.signal).finally(() => {
        sending = undefined
      })
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await sending
      const limit = AbortSignal.timeout(FLUSH_MS)
      for (const entry of waiting()) await send(entry, limit).catch(() => {})
    },
  }

  function remember({ type, reason, about, message }: Happening): Entry | undefined {
    const key = `${reason} ${about}`
    const now = clock.now()
    const entry = known.get(key) ?? {
      type,
      reason,
      name: undefined,
      count: 0,
      firstAt: now,
      lastAt: now,
      message,
      isSent: false,
    }
    if (!known.has(key) && known.size >= MAX_KNOWN) {
      const old = [...known].find(([, { isSent }]) => isSent)
      if (!old) return undefined
      known.delete(old[0])
    }
    Object.assign(entry, { count: entry.count + 1, lastAt: now, message: cut(redact(message)), isSent: false })
    known.set(key, entry)
    return entry
  }

  function waiting(): Entry[] {
    return [...known.values()].filter(({ isSent }) => !isSent)
  }

  async function sendAll(signal: AbortSignal): Promise<void> {
    for (let [entry] = waiting(); entry && !signal.aborted; [entry] = waiting()) {
      try {
        await earn(signal)
        await send(entry, signal)
        failures = 0
      } catch (thrown) {
        if (signal.aborted) return
        failures += 1
        if (failures === 1) onLost(toSidecarError(thrown))
        const pause = Math.min(PAUSE_MS * 2 ** Math.min(failures - 1, 10), LONGEST_PAUSE_MS)
        await clock.sleep(pause, signal).catch(() => {})
      }
    }
  }

  /** Waits until another request is within the rate. */
  async function earn(signal: AbortSignal): Promise<void> {
    const now = clock.elapsed()
    credit = Math.min(BURST, credit + (now - creditAt) / EVERY_MS)
    creditAt = now
    if (credit < 1) await clock.sleep((1 - credit) * EVERY_MS, signal)
    credit -= 1
  }

  async function send(entry: Entry, signal: AbortSignal): Promise<void> {
    podUid ??= (await readPod(api, signal)).uid
    const { name, count } = entry
    if (name === undefined || !(await raise(api, name, entry, signal)))
      entry.name = await create(api, podUid, entry, signal)
    // More may have come meanwhile.
    entry.isSent = entry.count === count
  }
}

interface Entry extends Omit<Happening, 'about'> {
  /** Of the object, once there is one. */
  name: string | undefined
  count: number
  readonly firstAt: Instant
  lastAt: Instant
  message: string
  isSent: boolean
}

const cut = (text: string) => (text.length > MAX_MESSAGE ? `${text.slice(0, MAX_MESSAGE)}…` : text)
const timeOf = (at: Instant) => `${new Date(at).toISOString().slice(0, 19)}Z`
const pathOf = ({ namespace }: Kubernetes) => ['api', 'v1', 'namespaces', namespace, 'events']

async function create(api: Kubernetes, uid: string, entry: Entry, signal: AbortSignal): Promise<string> {
  const { namespace, pod } = api
  const { type, reason, message, count, firstAt, lastAt } = entry
  const name = `${pod.slice(0, 230)}.${randomBytes(8).toString('hex')}`
  const body = {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', namespace, name: pod, uid },
    type,
    reason,
    message,
    count,
    firstTimestamp: timeOf(firstAt),
    lastTimestamp: timeOf(lastAt),
    source: { component: 'certferry' },
    reportingComponent: 'certferry',
    reportingInstance: pod,
  }
  await api.ask({ method: 'POST', path: pathOf(api), body }, z.object({}), signal)
  return name
}

/** False where the event has gone: the API server keeps them for an hour. */
async function raise(api: Kubernetes, name: string, entry: Entry, signal: AbortSignal): Promise<boolean> {
  const { count, lastAt, message } = entry
  const body = { count, lastTimestamp: timeOf(lastAt), message }
  const contentType = 'application/merge-patch+json'
  try {
    await api.ask({ method: 'PATCH', path: [...pathOf(api), name], body, contentType }, z.object({}), signal)
    return true
  } catch (error) {
    if (error instanceof SidecarError && error.code === 'KUBERNETES_NOT_FOUND') return false
    throw error
  }
}
