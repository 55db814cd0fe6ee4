import type { CertificateStatus } from '../../src/observe/status.ts'
import { until } from '../../test/support/until.ts'
import { assertTidy, readPair } from '../../test/support/volume.ts'
import type { Judge } from './judge.ts'
import type { Scene } from './storm.ts'
import type { Subject } from './subject.ts'

/**
 * From the end of the last fault to ACTIVE and verified. The longest waits that failures within one storm can lead to: the circuit
 * breaker leaves Vault alone for a minute; where nothing is on disk, what takes a person (a role that is gone) is tried again after two.
 */
const RECOVERY_MS = 150_000

/** Waits until it has come back by itself, and gives how long that took. */
export async function recover(subject: Subject, { judge, story }: Scene): Promise<number> {
  const startedAt = Date.now()
  try {
    const end = await untilWell(subject, judge)
    if (end === 'well') {
      judge.recovered(subject.name)
      story.tell(subject.name, `well again after ${Date.now() - startedAt} ms`)
    }
  } catch (error) {
    const why = error instanceof Error ? error.message : error
    judge.complain(subject.name, `${why}; ${await lastStatus(subject)}`)
  }
  return Date.now() - startedAt
}

/**
 * ACTIVE and verified, by its own word; what it says is on disk and is what clients get, and nothing is left over there. `stopped` where
 * a violation came first, here or elsewhere.
 */
export function untilWell(subject: Subject, judge: Judge): Promise<'well' | 'stopped'> {
  const ask = async () => {
    if (judge.violations.length > 0) return 'stopped'
    const [status] = (await subject.certferry.status()).certificates
    if (!status || !isWell(status) || judge.servedLast(subject.name) !== status.serial) return undefined
    // A renewal may be under way.
    if (readPair(subject.directory, subject.layout) !== status.fingerprint) return undefined
    assertTidy(subject.directory)
    return 'well'
  }
  return until('it is ACTIVE, verified and served', ask, { timeoutMs: RECOVERY_MS, everyMs: 100 })
}

const isWell = ({ phase, verified, failures, servedEqualsDisk }: CertificateStatus) =>
  phase === 'ACTIVE' && verified === 'verified' && failures === 0 && servedEqualsDisk !== false

const lastStatus = (subject: Subject) =>
  subject.certferry.status().then(
    (status) => JSON.stringify(status.certificates),
    (error: Error) => error.message,
  )
