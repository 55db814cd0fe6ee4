import { existsSync } from 'node:fs'
import * as z from 'zod'
import type { Advice } from '../acme/ari.ts'
import { AcmeOptions, stagingOf } from '../acme/options.ts'
import { type Bundle, parseCertificates, toBundle } from '../core/bundle.ts'
import { createCsr } from '../core/csr.ts'
import type { Finding } from '../core/finding.ts'
import { generateKey } from '../core/key.ts'
import type { Names } from '../core/names.ts'
import { mayHaveIssued, SidecarError } from '../errors.ts'
import { hasNames, NameOptions, NO_NAMES, namesFrom } from './name-options.ts'
import { defineSource } from './source.ts'

const { commonName, altNames } = NameOptions

const Options = z
  .strictObject({ commonName, altNames, ...AcmeOptions })
  .refine((options) => hasNames({ ...options, excludeCnFromSans: false }), NO_NAMES)
  .superRefine((options, context) => {
    const { uri, email, ip, dns } = namesFrom({ ...options, excludeCnFromSans: false })
    const refuse = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
    for (const name of [...uri, ...email].filter((one) => one !== options.commonName))
      refuse('altNames', `${name} cannot be had by ACME, which knows DNS names and IP addresses`)
    const first = namesFrom({ ...options, altNames: [], excludeCnFromSans: false })
    if (options.commonName !== undefined && first.dns.length + first.ip.length === 0)
      refuse('commonName', 'is no DNS name or IP address, and ACME knows nothing else')
    if (options.challenge.kind !== 'dns-01')
      for (const name of dns.filter((one) => one.startsWith('*.')))
        refuse('challenge', `must be dns-01: ${name} cannot be shown by ${options.challenge.kind}`)
    if (options.challenge.kind === 'dns-01')
      for (const name of ip) refuse('challenge', `cannot be dns-01 for the address ${name}`)
  })
type Options = z.output<typeof Options>

/** A CA that cannot be asked for its window now is asked again after this, ms. */
const ASK_AGAIN_MS = 3_600_000

export const acme = defineSource({
  kind: 'acme',
  summary:
    "Obtains from an ACME server (RFC 8555) such as Let's Encrypt, and renews when the server advises (RFC 9773). The chain comes without its root: check.trustFile names that of a private CA.",
  options: Options,
  create: (options, { key: { algorithm }, clock, env, warn }) => {
    const names = withoutCommonName(namesFrom({ ...options, excludeCnFromSans: false }))
    const origin = `acme ${options.directory}`
    /** By fingerprint: what the CA advised, and when it is asked again, by the monotonic clock. */
    let advised:
      | { readonly fingerprint: string; readonly advice: Advice | undefined; readonly askAt: number }
      | undefined
    const adviceOn = ({ fingerprint }: Bundle) => (advised?.fingerprint === fingerprint ? advised : undefined)

    const order = async (place: Pick<Options, 'directory'>, current: Bundle | undefined, signal: AbortSignal) => {
      const limit = AbortSignal.any([signal, AbortSignal.timeout(options.timeout)])
      try {
        return await orderAt({ ...options, ...place }, current, limit)
      } catch (error) {
        signal.throwIfAborted()
        if (!limit.aborted) throw error
        const message = `the order at ${place.directory} was not done within source.timeout`
        throw mayHaveIssued(new SidecarError('ACME_TIMEOUT', message))
      }
    }

    const orderAt = async (place: Options, current: Bundle | undefined, signal: AbortSignal) => {
      const [{ openAcme }, { obtain }] = await Promise.all([import('../acme/client.ts'), import('../acme/order.ts')])
      const key = await generateKey(algorithm)
      const csr = await createCsr(names, key)
      await using account = await openAcme(place, signal)
      const replaces =
        current?.origin === `acme ${place.directory}`
          ? await identifierOf(current, place, account.transport)
          : undefined
      const notAfter = options.ttl === undefined ? undefined : clock.now() + options.ttl
      const chain = await obtain(account, { names, csr, replaces, notAfter }, place, { clock, env, warn }, signal)
      const parts = { certificate: chain, key, origin: `acme ${place.directory}`, receivedAt: clock.now() }
      return toBundle({ ...parts, issuers: await publicRootOf(chain) })
    }

    return {
      origin,
      issues: true,
      ttlMs: options.ttl,
      names,
      isCommonNameFree: true,
      algorithm,
      fetch: (signal, current) => order(options, current, signal),
      polling: {
        afterMs: (serving) => Math.max((adviceOn(serving)?.askAt ?? 0) - clock.elapsed(), 0),
        renewAt: (serving) => adviceOn(serving)?.advice?.at,
        look: async (serving, signal) => {
          const [{ openTransport }, { askAdvice }] = await Promise.all([
            import('../acme/transport.ts'),
            import('../acme/ari.ts'),
          ])
          const before = adviceOn(serving)?.advice
          const known = (advice: Advice | undefined, askAfterMs: number) => {
            advised = { fingerprint: serving.fingerprint, advice, askAt: clock.elapsed() + askAfterMs }
          }
          try {
            await using transport = await openTransport(
              options.caFile,
              AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]),
            )
            const advice = await askAdvice(transport, options.directory, serving.leaf, clock.now())
            known(advice, advice?.askAfterMs ?? ASK_AGAIN_MS * 24)
          } catch {
            signal.throwIfAborted()
            // What it advised last still holds, and the config decides where it never did: no reason for trouble.
            known(before, ASK_AGAIN_MS)
          }
          return serving
        },
      },
      revoke: async (certificate, why, signal) => {
        const { openAcme, revokeAt } = await import('../acme/client.ts')
        await using account = await openAcme(options, signal)
        await revokeAt(account, certificate.toString(), why)
      },
      rehearse: async (signal) => {
        const directory = stagingOf(options)
        if (directory === undefined)
          throw new SidecarError(
            'CONFIG_INVALID',
            `no staging directory is known for ${options.directory}; say source.stagingDirectory`,
          )
        const bundle = await order({ directory }, undefined, signal)
        const what = `${directory} issued certificate ${bundle.serial} for ${[...names.dns, ...names.ip].join(', ')}, which is thrown away`
        return [{ what, bundle: { ...bundle, origin }, isStaging: directory !== options.directory }]
      },
      examine: (signal) => examine(options, signal),
    }
  },
})

const ASK_MS = 30_000

/** A CA puts into the common name what it likes, if anything. */
const withoutCommonName = (names: Names): Names => ({ ...names, commonName: undefined })

async function identifierOf(
  current: Bundle,
  { directory }: Options,
  transport: Parameters<typeof import('../acme/ari.ts').askAdvice>[0],
) {
  const { certificateId } = await import('../acme/ari.ts')
  const { data } = await transport.send(directory, 'GET', {})
  // RFC 9773 §5: only where the server knows the extension.
  if (typeof data !== 'object' || data === null || !('renewalInfo' in data)) return undefined
  return certificateId(current.leaf).catch(() => undefined)
}

/** The chain ends below its root (RFC 8555 §9.1): of a public CA the root is among those Node knows. */
async function publicRootOf(chain: string): Promise<string[]> {
  const { rootCertificates } = await import('node:tls')
  const last = parseCertificates(chain).at(-1)
  if (!last) return []
  return rootCertificates.filter((pem) => {
    const [root] = parseCertificates(pem)
    return root !== undefined && last.checkIssued(root) && last.verify(root.publicKey)
  })
}

/** Whether the directory answers and the account is good; nothing is ordered. */
async function examine(options: Options, signal: AbortSignal): Promise<Finding[]> {
  // Whoever only looks makes neither key nor account.
  if (!existsSync(options.account.keyFile)) {
    const { openTransport } = await import('../acme/transport.ts')
    await using transport = await openTransport(options.caFile, signal)
    const { status } = await transport.send(options.directory, 'GET', {})
    if (status !== 200) throw new SidecarError('ACME_UNREACHABLE', `${options.directory} answers ${status}`)
    return [{ ok: true, what: `${options.directory} answers; the account is made with the first order` }]
  }
  const { openAcme } = await import('../acme/client.ts')
  await using account = await openAcme(options, signal)
  return [{ ok: true, what: `${options.directory} knows the account ${account.client.getAccountUrl()}` }]
}
