import { createHash } from 'node:crypto'
import * as z from 'zod'
import type { Bundle } from '../core/bundle.ts'
import { bundleOf, type Material, type Piece, passwordIn } from '../core/material.ts'
import { Duration } from '../core/units.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { watchFiles } from '../watching.ts'
import { heldSource } from './held.ts'
import { defineSource, type SourceDeps } from './source.ts'
import { warnOfUnrelated } from './unrelated.ts'

const File = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path')

const Options = z
  .strictObject({
    certFile: File.optional().describe(
      'PEM: the certificate and its issuers, in any order; the key too, where keyFile is not given',
    ),
    keyFile: File.optional().describe('PEM: the private key'),
    chainFile: File.optional().describe('PEM: issuers that are not in certFile'),
    caFile: File.optional().describe('PEM: the root, such as ca.crt of cert-manager'),
    pkcs12File: File.optional().describe('Instead of certFile and keyFile, a PKCS#12 file'),
    passwordFile: File.optional().describe('Its first line is the password of the private key, or of the PKCS#12 file'),
    watch: z
      .enum(['inotify', 'polling', 'off'])
      .default('inotify')
      .describe(
        'How a change is noticed at once: the kernel tells; or each second by a look at times and sizes, for network file systems; or not',
      ),
    poll: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
      .prefault('1m')
      .describe('How often the files are read all the same, up to a tenth sooner by chance'),
  })
  .refine(({ certFile, pkcs12File }) => (certFile === undefined) !== (pkcs12File === undefined), {
    error: 'needs either certFile or pkcs12File',
  })
  .refine(({ keyFile, pkcs12File }) => keyFile === undefined || pkcs12File === undefined, {
    path: ['keyFile'],
    error: 'cannot be given together with pkcs12File, which holds the key',
  })
type Options = z.output<typeof Options>

export const file = defineSource({
  kind: 'file',
  summary:
    "A certificate and its key that somebody else writes: cert-manager's mounted Secret, certbot's live/, a copy. A change is a rotation, once the pair fits.",
  options: Options,
  create: (options, { clock: { now, random, sleep }, warn }) => {
    const place = options.certFile ?? options.pkcs12File ?? ''
    const origin = `file ${place}`
    /** What was read last, by the digest of the files: keys need not be parsed each minute. */
    let last: { readonly digest: string; readonly bundle: Bundle } | undefined
    const fetch = async (signal: AbortSignal): Promise<Bundle> => {
      const { pieces, digest } = await readSteadily(options, sleep, signal)
      try {
        if (last?.digest === digest) return last.bundle
        const bundle = await bundleOf(materialOf(options, pieces), { origin, receivedAt: now(), options: WORDS })
        warnOfUnrelated(bundle, place, warn)
        last = { digest, bundle }
        return bundle
      } finally {
        for (const { content } of pieces.values()) content.fill(0)
      }
    }
    return heldSource({
      origin,
      place,
      poll: options.poll,
      random,
      fetch,
      watch:
        options.watch !== 'off' &&
        ((ring) =>
          watchFiles(filesOf(options), ring, {
            polling: options.watch === 'polling',
            failed: (error) =>
              warn(`${place} cannot be watched (${systemCode(error) ?? 'unknown'}); it is read as often as poll says`),
          })),
    })
  },
})

const WORDS = { key: 'keyFile', password: 'passwordFile', pkcs12: 'pkcs12File' }

type Pieces = ReadonlyMap<string, Piece>

const filesOf = ({ certFile, keyFile, chainFile, caFile, pkcs12File, passwordFile }: Options): string[] => [
  ...new Set([certFile, keyFile, chainFile, caFile, pkcs12File, passwordFile].filter((path) => path !== undefined)),
]

/** Twice the same with this between, or somebody is writing. */
const STEADY_MS = 50
const TRIES = 10

/** All files as they are at one moment: read until two readings in a row are the same, or INPUT_INCOMPLETE. */
async function readSteadily(options: Options, sleep: SourceDeps['clock']['sleep'], signal: AbortSignal) {
  const files = filesOf(options)
  let before: string | undefined
  for (let attempt = 0; attempt < TRIES; attempt++) {
    signal.throwIfAborted()
    const pieces = new Map(files.map((path) => [path, read(path)]))
    const digest = digestOf(pieces)
    if (digest === before) return { pieces, digest }
    for (const { content } of pieces.values()) content.fill(0)
    before = digest
    await sleep(STEADY_MS, signal)
  }
  throw new SidecarError('INPUT_INCOMPLETE', `${files.join(', ')} change all the time; they were read ${TRIES} times`)
}

function read(place: string): Piece {
  try {
    return { place, content: readPlainFile(place) }
  } catch (cause) {
    throw new SidecarError('INPUT_MISSING', `${place} cannot be read (${systemCode(cause) ?? 'unknown'})`, { cause })
  }
}

function digestOf(pieces: Pieces): string {
  const hash = createHash('sha256')
  for (const { place, content } of pieces.values()) hash.update(`${place}\0${content.length}\0`).update(content)
  return hash.digest('hex')
}

function materialOf(
  { certFile, keyFile, chainFile, caFile, pkcs12File, passwordFile }: Options,
  pieces: Pieces,
): Material {
  const piece = (path: string | undefined) => (path === undefined ? undefined : pieces.get(path))
  const issuers = [piece(chainFile), piece(caFile)].filter((one) => one !== undefined)
  const [secret, pkcs12, certificate] = [piece(passwordFile), piece(pkcs12File), piece(certFile)]
  const password = secret && passwordIn(secret)
  if (pkcs12) return { pkcs12, issuers, password }
  if (!certificate) throw new TypeError('the schema asks for one of both')
  return { certificate, key: piece(keyFile), issuers, password }
}
