import { styleText } from 'node:util'
import { systemClock } from '../clock.ts'
import { loadConfig } from '../config/config.ts'
import { type Finding, findingOf } from '../core/finding.ts'
import { type ErrorCode, toSidecarError } from '../errors.ts'
import { openIdle } from '../idle.ts'
import type { ManagedCertificate } from '../rotation.ts'
import type { Rehearsal } from '../sources/source.ts'
import { type Io, print, printFinding } from './io.ts'
import { examineSource } from './source-findings.ts'

const FAILED = 69

/**
 * `once --dry-run`: each certificate is obtained for a trial where its source has a place for that, as an ACME server has in its staging
 * directory, and thrown away; what others hold is looked at, and those who issue are asked whether they would. No directory is opened, no
 * target told. Returns the exit code: 0, or 69 when something failed.
 */
export async function rehearse(file: string, timeoutMs: number, io: Io): Promise<number> {
  const config = loadConfig(file, io.env)
  await using idle = openIdle(config, io.env)
  const signal = AbortSignal.any([io.signal, AbortSignal.timeout(timeoutMs)])
  let failures = 0
  const tell = (name: string, findings: readonly Finding[]) => {
    for (const finding of findings) {
      if (finding.ok === false) failures += 1
      printFinding(io, { ...finding, what: `${name}  ${finding.what}` })
    }
  }
  for (const { cert } of idle.certificates) tell(cert.name, await rehearsed(cert, signal))
  for (const { trust } of idle.trust)
    tell(trust.name, await trust.source.examine(signal).catch((error) => [findingOf(error)]))
  print(io, styleText('dim', 'dry run: nothing was written, and no target was told', { stream: io.stdout }))
  return failures > 0 ? FAILED : 0
}

async function rehearsed(cert: ManagedCertificate, signal: AbortSignal): Promise<readonly Finding[]> {
  const { source } = cert
  try {
    if (source.rehearse) return (await source.rehearse(signal)).map((trial) => judged(cert, trial))
    const findings = await examineSource(cert, () => signal)
    return findings.map((finding) => ({ ...finding, what: `nothing to rehearse; ${finding.what}` }))
  } catch (thrown) {
    return [findingOf(thrown)]
  }
}

/** What a staging CA does not have, and the CA itself may. */
const LACKING: ReadonlyMap<ErrorCode, string> = new Map([
  ['CHAIN_INVALID', 'of a root that is not trusted here'],
  ['OCSP_UNAVAILABLE', 'without an OCSP response'],
])

/** As before a delivery. */
function judged({ assertUsable }: ManagedCertificate, { what, bundle, isStaging }: Rehearsal): Finding {
  try {
    assertUsable(bundle, systemClock.now())
    return { ok: true, what }
  } catch (thrown) {
    const lacking = isStaging ? LACKING.get(toSidecarError(thrown).code) : undefined
    if (lacking !== undefined) return { ok: true, what: `${what}; ${lacking}, as is usual for staging` }
    return findingOf(thrown, `${what}, and could not be put into service: `)
  }
}
