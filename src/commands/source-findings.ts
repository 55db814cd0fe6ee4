import { systemClock } from '../clock.ts'
import { type Finding, findingOf } from '../core/finding.ts'
import type { ManagedCertificate } from '../rotation.ts'

/** What a source says of itself, and of what it holds already, whether that could be put into service. Has nothing issued. */
export async function examineSource(
  { source, assertUsable }: ManagedCertificate,
  limit: () => AbortSignal,
): Promise<readonly Finding[]> {
  const findings = await source.examine(limit())
  if (source.issues || findings.some(({ ok }) => ok === false)) return findings
  const held = await source.fetch(limit())
  try {
    assertUsable(held, systemClock.now())
    return findings
  } catch (thrown) {
    return [...findings, findingOf(thrown, 'cannot be put into service: ')]
  }
}
