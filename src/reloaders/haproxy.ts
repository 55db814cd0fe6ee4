import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { connect, type NetConnectOpts, type Socket } from 'node:net'
import * as z from 'zod'
import { quote } from '../core/secret.ts'
import { formatDuration, Timeout } from '../core/units.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { testOptions, withTest } from './config-test.ts'
import { AbsolutePath } from './options.ts'
import { defineReloader, type ReloaderDeps } from './reloader.ts'

/** In a command, a space ends a word, `;` a command, and `<<` begins a payload (HAProxy management guide, §9.3). */
const Word = AbsolutePath.regex(
  /^[^\s;<\\]+$/,
  'must be a path without spaces and ; < \\, which mean something to HAProxy',
)

const Options = z
  .strictObject({
    socket: z
      .string()
      .regex(/^\/[^\0]*$|^[^/\s]+:\d{1,5}$/, 'must be an absolute path, or host:port')
      .meta({
        description:
          'Its stats socket of level admin (via runtime), or the socket of its master, haproxy -S (via master): an absolute path, or host:port',
      }),
    via: z.enum(['runtime', 'master']).default('runtime').meta({
      description:
        'runtime puts the certificate into the running process, which starts no worker; master has HAProxy reload and read all its files',
    }),
    file: Word.optional().meta({ description: 'The combined PEM file that is written; needed for via runtime' }),
    name: Word.optional().meta({
      description: 'How the configuration of HAProxy names that file; the same unless given',
    }),
    timeout: Timeout.prefault('10s').meta({ description: 'For all of it' }),
    ...testOptions,
  })
  .refine(({ via, file }) => (via === 'runtime') === (file !== undefined), {
    error: 'needs file for via: runtime, and takes none for via: master',
  })
  .refine(({ name, file }) => name === undefined || file !== undefined, { error: 'takes name only with file' })
type Options = z.output<typeof Options>

/**
 * The runtime API (management guide, §9.3) holds one transaction for all certificates. A commit changes memory only: the file is written
 * before, so that HAProxy serves the same after a reload of its own.
 */
export const haproxy = defineReloader({
  kind: 'haproxy',
  summary: 'Puts the certificate into a running HAProxy by its runtime API, or has its master reload.',
  options: Options,
  create: (options, deps) => {
    const { socket, via, file, name = file } = options
    const description = `HAProxy at ${socket}, ${via === 'master' ? 'reload by its master' : `commit of ${name}`}`
    return withTest(options, deps, {
      kind: 'haproxy',
      description,
      inspect: async () => {
        const talk = conversation(options, AbortSignal.timeout(options.timeout))
        if (via === 'master') {
          if (!countsIn(await talk('show proc'))) throw noMaster(options)
          return `${description}: it answers`
        }
        const answer = await talk(`show ssl cert ${name}`)
        if (fingerprintIn(answer) === undefined) throw unknown(options, answer)
        return `${description}: it knows this file`
      },
      reload: async (_context, signal) => {
        const limit = AbortSignal.any([signal, AbortSignal.timeout(options.timeout)])
        try {
          if (via === 'master') await reloadMaster(options, deps, limit)
          else await commit(options, deps, limit)
        } catch (error) {
          signal.throwIfAborted()
          if (!limit.aborted) throw error
          throw new SidecarError(
            'RELOAD_TIMEOUT',
            `${description} did not end within ${formatDuration(options.timeout)}`,
          )
        }
      },
    })
  },
})

type Talk = (command: string, payload?: Buffer) => Promise<string>

async function commit(options: Options, { clock }: ReloaderDeps, signal: AbortSignal): Promise<void> {
  const { file = '', name = file } = options
  const talk = conversation(options, signal)
  const { payload, fingerprint } = await readPem(file)
  const staple = await readStaple(file)
  const set = async (of: string, content: Buffer) => {
    const answer = await whileBusy(() => talk(`set ssl cert ${of} <<`, content), clock, signal)
    if (!/^Transaction (?:created|updated)/m.test(answer)) throw refusal(options, answer)
  }
  try {
    // 1. What somebody left open of this file would be committed with ours.
    await talk(`abort ssl cert ${name}`)
    // 2. Another certificate may be in the middle of its own transaction, for a moment.
    await set(name, payload)
    // 3. Else it would staple nothing: a new certificate takes the response of the one before away.
    if (staple) await set(`${name}.ocsp`, staple)
    // 4. The old one stays in service until HAProxy has found certificate and key to be a pair.
    const answer = await talk(`commit ssl cert ${name}`)
    // Cut off in the middle, such as by a reload of HAProxy, it refuses nothing: what it has then tells.
    if (!answer.includes('Success!') && !CUT_OFF.test(answer)) throw refusal(options, answer)
  } catch (error) {
    // An open transaction would keep everybody else from changing a certificate.
    await conversation(options, AbortSignal.timeout(ABORT_MS))(`abort ssl cert ${name}`).catch(() => {})
    throw error
  } finally {
    payload.fill(0)
  }
  // 5. What the running process has now.
  const has = fingerprintIn(await talk(`show ssl cert ${name}`))
  if (has === fingerprint) return
  throw new SidecarError(
    'RELOAD_FAILED',
    `HAProxy at ${options.socket} took ${name}, but has the certificate with SHA-1 ${has ?? 'unknown'}, wanted ${fingerprint}`,
  )
}

const CUT_OFF = /^\s*Committing \S+\s*$/
const ABORT_MS = 2_000
const BUSY_MS = 3_000
const SPACING_MS = 100

async function whileBusy(
  ask: () => Promise<string>,
  clock: ReloaderDeps['clock'],
  signal: AbortSignal,
): Promise<string> {
  const startedAt = clock.elapsed()
  for (;;) {
    const answer = await ask()
    if (!answer.includes('ongoing transaction is about') || clock.elapsed() - startedAt > BUSY_MS) return answer
    await clock.sleep(SPACING_MS, signal)
  }
}

function refusal(options: Options, answer: string): SidecarError {
  if (answer.includes('not referenced by the configuration')) return unknown(options, answer)
  const code = answer.includes('Permission denied') ? 'RELOAD_EPERM' : 'RELOAD_FAILED'
  const why = code === 'RELOAD_EPERM' ? '; the stats socket must be of level admin' : ''
  return new SidecarError(code, `HAProxy at ${options.socket} does not take ${options.file}: ${said(answer)}${why}`)
}

const unknown = ({ socket, file, name = file }: Options, answer: string) =>
  new SidecarError(
    'RELOAD_FAILED',
    `HAProxy at ${socket} does not know ${name}: ${said(answer)}; name the file as "crt" or in the crt-list of its configuration has it, see show ssl cert`,
  )

/** Certificate of the file, and the payload: a blank line would end it, and what follows be run as commands. */
async function readPem(file: string): Promise<{ payload: Buffer; fingerprint: string }> {
  const pem = await readFile(file).catch((cause: unknown) => {
    throw new SidecarError(
      'RELOAD_TARGET_MISSING',
      `the file for HAProxy, ${file}, cannot be read: ${systemCode(cause)}`,
      {
        cause,
      },
    )
  })
  try {
    const begins = pem.indexOf('-----BEGIN CERTIFICATE-----')
    if (begins === -1)
      throw new SidecarError('RELOAD_TARGET_MISSING', `the file for HAProxy, ${file}, holds no certificate`)
    return { payload: withoutBlankLines(pem), fingerprint: sha1Of(pem.subarray(begins)) }
  } finally {
    pem.fill(0)
  }
}

/** The OCSP response beside the file, by the name under which HAProxy looks for it as well; where there is one. */
async function readStaple(file: string): Promise<Buffer | undefined> {
  try {
    return Buffer.from(`${(await readFile(`${file}.ocsp`)).toString('base64')}\n`)
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return undefined
    const why = `the OCSP response for HAProxy, ${file}.ocsp, cannot be read: ${systemCode(cause)}`
    throw new SidecarError('RELOAD_TARGET_MISSING', why, { cause })
  }
}

const LF = 0x0a
const CR = 0x0d

function withoutBlankLines(pem: Buffer): Buffer {
  const kept = Buffer.alloc(pem.length + 1)
  let length = 0
  for (const byte of [...pem, LF]) {
    if (byte === CR || (byte === LF && (length === 0 || kept[length - 1] === LF))) continue
    kept[length++] = byte
  }
  return kept.subarray(0, length)
}

const sha1Of = (pem: Buffer) => new X509Certificate(pem).fingerprint.replaceAll(':', '')
const fingerprintIn = (answer: string) => /^SHA1 FingerPrint: ([0-9A-F]+)$/m.exec(answer)?.[1]
const said = (answer: string) => quote(answer.trim().replace(/\s+/g, ' ').slice(0, 1_000), 300)

/**
 * From 2.7 on the master answers once the reload is over, `Success=1` or `Success=0` and what it complains of. Before, it answers nothing,
 * and tells by `show proc` how often it reloaded, and how often in a row that failed.
 */
async function reloadMaster(options: Options, { clock }: ReloaderDeps, signal: AbortSignal): Promise<void> {
  const talk = conversation(options, signal)
  const before = countsIn(await talk('show proc'))
  if (!before) throw noMaster(options)
  // Some versions hang up in the middle of it.
  const answer = await talk('reload').catch(() => '')
  if (/^Success=1/m.test(answer)) return
  if (answer.trim() !== '') throw notReloaded(options, said(answer))
  for (;;) {
    // It executes itself anew, and may not answer meanwhile.
    const now = countsIn(await talk('show proc').catch(() => ''))
    if (now && now.reloads > before.reloads) {
      if (now.failed === 0) return
      throw notReloaded(options, 'its log says why')
    }
    await clock.sleep(SPACING_MS, signal)
  }
}

const noMaster = ({ socket }: Options) =>
  new SidecarError('RELOAD_TARGET_MISSING', `what answers at ${socket} is no master of HAProxy`)

const notReloaded = ({ socket }: Options, why: string) =>
  new SidecarError('RELOAD_FAILED', `HAProxy at ${socket} did not load its configuration: ${why}`)

function countsIn(answer: string): { reloads: number; failed: number } | undefined {
  const [, reloads, failed] = /^\d+\s+master\s+(\d+)(?: \[failed: (\d+)\])?/m.exec(answer) ?? []
  return reloads === undefined ? undefined : { reloads: Number(reloads), failed: Number(failed ?? 0) }
}

/** Without a word, and by a reset where it had not read everything yet. */
const TOO_LONG = 'hung up on the PEM file; it must be smaller than tune.bufsize, which is 16 kB by default'

/** One connection a command: HAProxy answers and closes. Payload ends with a blank line. */
function conversation({ socket }: Options, signal: AbortSignal): Talk {
  return async (command, payload) => {
    const connection = connect({ ...placeOf(socket), signal })
    // In one piece: it closes as soon as it has answered, and a write after that fails.
    const request = Buffer.concat([Buffer.from(`${command}\n`), ...(payload ? [payload, Buffer.from('\n')] : [])])
    try {
      connection.end(request)
      const answer = await readAnswer(connection, socket)
      if (payload && answer === '') throw new SidecarError('RELOAD_FAILED', `HAProxy at ${socket} ${TOO_LONG}`)
      return answer
    } catch (cause) {
      signal.throwIfAborted()
      if (cause instanceof SidecarError) throw cause
      if (payload && ['ECONNRESET', 'EPIPE'].includes(systemCode(cause) ?? ''))
        throw new SidecarError('RELOAD_FAILED', `HAProxy at ${socket} ${TOO_LONG}`, { cause })
      throw failure(socket, command, cause)
    } finally {
      connection.destroy()
      request.fill(0)
    }
  }
}

const MAX_ANSWER_BYTES = 1024 * 1024

async function readAnswer(connection: Socket, socket: string): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of connection) {
    chunks.push(chunk)
    length += chunk.length
    if (length > MAX_ANSWER_BYTES)
      throw new SidecarError('RELOAD_TARGET_MISSING', `what answers at ${socket} is no HAProxy: it does not end`)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function placeOf(socket: string): NetConnectOpts {
  if (socket.startsWith('/')) return { path: socket }
  const { hostname, port } = new URL(`tcp://${socket}`)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) }
}

function failure(socket: string, command: string, cause: unknown): SidecarError {
  const code = systemCode(cause)
  const what = `HAProxy at ${socket} does not answer "${command.split(' <<')[0]}": ${code ?? cause}`
  if (code === 'EACCES' || code === 'EPERM') return new SidecarError('RELOAD_EPERM', what, { cause })
  return new SidecarError('RELOAD_TARGET_MISSING', what, { cause })
}
