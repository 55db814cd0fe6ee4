import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fingerprintOf } from '../src/core/bundle.ts'
import { handshake } from '../src/verifiers/handshake.ts'
import { createTestCa } from '../test/support/ca.ts'
import { type Nginx, startNginx } from '../test/support/nginx.ts'
import { SERVER_NAME } from '../test/support/stage.ts'

export const WORKERS = 2
/** So long nothing old may be seen before a hand-over counts as over. */
const QUIET_MS = 500
const LIMIT_MS = 10_000
const PAUSE_MS = 2
const CLIENTS = 2

/** An nginx with two certificates, of which one is in place. */
export interface PlainNginx extends AsyncDisposable {
  /** Puts the other one in place, sends SIGHUP, and gives the ms from there to when an observer no longer meets the old one. */
  handOver(): Promise<number>
}

export async function startPlainNginx(): Promise<PlainNginx> {
  await using opened = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'certferry-bench-nginx-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  process.once('exit', remove)
  opened.defer(remove)
  const sets = ['a', 'b'] as const
  const ca = await createTestCa()
  for (const set of sets) {
    const { certificatePem, chainPems, keyPem } = await ca.issue({ commonName: SERVER_NAME, withIntermediate: true })
    mkdirSync(join(folder, set))
    writeFileSync(join(folder, set, 'tls.crt'), [certificatePem, ...chainPems].join('\n'))
    writeFileSync(join(folder, set, 'tls.key'), keyPem, { mode: 0o600 })
  }
  const place = (turn: number) => {
    symlinkSync(sets[turn % 2] ?? 'a', join(folder, 'next'))
    renameSync(join(folder, 'next'), join(folder, 'current'))
  }
  place(0)
  const files = { certificate: join(folder, 'current/tls.crt'), key: join(folder, 'current/tls.key') }
  const nginx: Nginx = opened.use(await startNginx({ ...files, workers: WORKERS }))
  let turn = 0
  const held = opened.move()
  return {
    handOver: async () => {
      turn += 1
      place(turn)
      const observed = await observe(nginx.port, async () => {
        const at = performance.now()
        nginx.reload()
        return at
      })
      return observed.overAt - observed.result
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

/**
 * Clients connect without pause while `change` runs, which leads to another certificate. `overAt` is when the first of the handshakes that
 * met only the new one was done.
 */
export async function observe<T>(port: number, change: () => Promise<T>): Promise<{ result: T; overAt: number }> {
  const stop = new AbortController()
  const seen: Handshake[] = []
  const clients = Array.from({ length: CLIENTS }, () => connectAgain(port, seen, stop.signal))
  try {
    const old = await shownAt(port)
    const result = await change()
    const deadline = performance.now() + LIMIT_MS
    for (;;) {
      if (performance.now() > deadline) throw new Error('an observer did not meet the new certificate alone')
      const lastOld = seen.findLast(({ shown }) => shown === old)
      const first = seen.find(({ shown, openedAt }) => shown !== old && openedAt > (lastOld?.openedAt ?? 0))
      if (first && performance.now() - first.doneAt > QUIET_MS) return { result, overAt: first.doneAt }
      await sleep(20)
    }
  } finally {
    stop.abort()
    await Promise.all(clients)
  }
}

interface Handshake {
  readonly openedAt: number
  readonly doneAt: number
  readonly shown: string
}

async function connectAgain(port: number, seen: Handshake[], signal: AbortSignal) {
  while (!signal.aborted) {
    const openedAt = performance.now()
    const shown = await shownAt(port).catch(() => undefined)
    if (shown !== undefined) seen.push({ openedAt, doneAt: performance.now(), shown })
    await sleep(PAUSE_MS)
  }
}

/** The fingerprint of what a new connection is shown. */
async function shownAt(port: number): Promise<string> {
  const endpoint = { host: '127.0.0.1', port, serverName: SERVER_NAME, alpn: undefined, timeoutMs: LIMIT_MS }
  const look = await handshake(endpoint, new AbortController().signal)
  if (!look.up) throw new Error(look.why)
  return fingerprintOf(look.chain[0])
}
