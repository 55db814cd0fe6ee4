import { styleText } from 'node:util'
import { loadConfig } from '../config/config.ts'
import { toSidecarError } from '../errors.ts'
import { openIdle } from '../idle.ts'
import type { ManagedCertificate } from '../rotation.ts'
import { type Io, print } from './io.ts'

const FAILED = 69

/**
 * `once --dry-run`: each certificate is obtained for a trial where its source has a place for that, as an ACME server has in its staging
 * directory, and thrown away; the others are asked whether they would be given one. No directory is opened, no target told. Returns the
 * exit code: 0, or 69 when something failed.
 */
export async function rehearse(file: string, timeoutMs: number, io: Io): Promise<number> {
  const config = loadConfig(file, io.env)
  await using idle = openIdle(config, io.env)
  const signal = AbortSignal.any([io.signal, AbortSignal.timeout(timeoutMs)])
  let failures = 0
  for (const { cert } of idle.certificates) {
    const results = await rehearsed(cert, signal)
    for (const { ok, what, fix } of results) {
      if (ok === false) failures += 1
      const mark = ok ? 'green' : ok === false ? 'red' : 'yellow'
      const sign = { green: '✓', red: '✗', yellow: '?' }[mark]
      print(io, `${styleText(mark, sign, { stream: io.stdout })} ${cert.name}  ${what}`)
      if (!ok && fix) print(io, `  ${styleText('dim', `→ ${fix}`, { stream: io.stdout })}`)
    }
  }
  print(io, styleText('dim', 'dry run: nothing was written, and no target was told', { stream: io.stdout }))
  return failures > 0 ? FAILED : 0
}

async function rehearsed({ source }: ManagedCertificate, signal: AbortSignal) {
  try {
    if (source.rehearse) return [{ ok: true, what: await source.rehearse(signal), fix: undefined }]
    const findings = await source.examine(signal)
    return findings.map(({ ok, what, fix }) => ({ ok, what: `nothing to rehearse; ${what}`, fix }))
  } catch (thrown) {
    const { message, kind } = toSidecarError(thrown)
    return [{ ok: false, what: message, fix: kind.hint }]
  }
}
